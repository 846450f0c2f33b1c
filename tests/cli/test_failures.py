"""What ends a command: a line that says it, a traceback where that was asked for, the machine as found."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.broken_plugins import HEAD, hook, install
from tests.helpers.cli_command import COMMAND, QEMU, addresses, run, start
from tests.helpers.processes import is_told_to_stop, wait_until
from tests.sample import NIC

pytestmark = pytest.mark.sample

# A plugin's log handler is no hook: what it raises comes out of whatever call logged.
RAISES = """
import logging

class Handler(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("write "):
            raise ZeroDivisionError("of the \x1b[31mhandler")

logging.getLogger("hostdev").addHandler(Handler())
"""


def test_a_traceback_is_shown_where_it_was_asked_for(host: SimulatedHost) -> None:
    for words, traced in (((), False), (("-v",), False), (("-vv",), True)):
        done = run(*QEMU, "prepare", "vm1", "7f:00.0", *words, host=host)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("hostdev: ") or not traced
        assert ("Traceback (most recent call last):" in done.stderr) == traced
        assert ("\n  File " in done.stderr) == traced
    assert host.ledger.records() == []


def test_what_nobody_expected_is_named_and_nothing_stays_lent(
    host: SimulatedHost, tmp_path: Path
) -> None:
    env = install(tmp_path / "site", HEAD + RAISES)
    before = host.snapshot()
    host.on_write("*/e1000e/unbind", delay=1.0)  # the worker is not done when it is told to stop
    done = run(*QEMU, "prepare", "vm1", NIC, "-vv", host=host, env=env)
    assert done.returncode == 1
    assert "hostdev: unexpected ZeroDivisionError: of the [31mhandler (-vv shows" in done.stderr
    assert "Traceback (most recent call last):" in done.stderr
    assert "\x1b" not in done.stderr
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_a_signal_before_any_handler_stops_the_command(host: SimulatedHost, tmp_path: Path) -> None:
    """`plugins` opens no connection, and sets none."""
    here = tmp_path / "here"
    waits = f"import pathlib, time; pathlib.Path({str(here)!r}).touch(); time.sleep(1000)"
    env = install(tmp_path / "site", hook("def hostdev_check(): ...") + waits)
    with start("plugins", host=host, env=env) as command:
        wait_until(here.exists)
        command.send_signal(signal.SIGINT)
        shown, said = command.communicate(timeout=60)
    assert (command.returncode, shown) == (130, "")
    assert said.startswith("hostdev: stopped by SIGINT\n  plugin 'sentry' (")


def test_nohup_goes_on_after_a_hangup(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    words = ["bash", "-c", "trap '' HUP; exec \"$@\"", "nohup", *COMMAND, *QEMU]
    with subprocess.Popen(
        [*words, "prepare", "vm1", NIC, "--host", host.root],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        host.wait_hanging()
        command.send_signal(signal.SIGHUP)
        assert not is_told_to_stop(command.pid)
        host.release()
        shown, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (0, "")
    assert NIC in shown
    assert addresses(host) == [NIC]


def test_a_terminal_that_goes_away_takes_the_progress_alone(host: SimulatedHost) -> None:
    """The command is no child of the terminal's session: it gets no SIGHUP."""
    host.on_write("*/e1000e/unbind", hang=True)
    mine, its = pty.openpty()
    words = [*COMMAND, *QEMU, "-v", "prepare", "vm1", NIC, "--host", host.root]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=its, text=True) as command:
        os.close(its)
        host.wait_hanging()
        shown, until = b"", time.monotonic() + 60
        while f"unbind {NIC}".encode() not in shown and time.monotonic() < until:
            if select.select([mine], [], [], 1)[0]:
                shown += os.read(mine, 4096)
        os.close(mine)
        host.release()
        printed, _ = command.communicate(timeout=60)
    assert (command.returncode, printed) == (0, f"-device vfio-pci,host={NIC}\n")
    assert addresses(host) == [NIC]
