"""A full disk, a closed stream, a reader that went away: the work is done all the same, and said so."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, QEMU, clean_environment
from tests.helpers.processes import wait_until
from tests.sample import NIC


def shell(host: SimulatedHost, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does, with this redirection."""
    line = shlex.join([*COMMAND, "--host", host.root, *QEMU, *words])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} {redirection}"],
        capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
    )  # fmt: skip
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text
        assert "Exception ignored" not in text
        assert "unexpected" not in text
    return done


def lent(host: SimulatedHost) -> list[str]:
    assert all(record.op is None and record.stuck is None for record in host.ledger.records())
    assert os.listdir(Path(host.state_dir, "op")) == []
    return [record.address for record in host.ledger.records()]


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_a_full_disk_takes_the_answer_and_nothing_else(
    host: SimulatedHost, how: tuple[str, ...]
) -> None:
    before = host.snapshot()
    done = shell(host, ">/dev/full", "prepare", "vm1", NIC, *how)
    assert done.returncode == 4
    assert "No space left" in done.stderr
    assert "hostdev status" in done.stderr
    assert lent(host) == [NIC]
    assert shell(host, ">/dev/full", "status").returncode == 4
    assert shell(host, ">/dev/full", "reattach", "vm1", *how).returncode == 4
    assert lent(host) == []
    assert host.snapshot() == before


@pytest.mark.parametrize("words", [("list",), ("plan", "vm1", NIC), ("--help",), ("--version",)])
def test_a_full_disk_under_those_who_only_look(host: SimulatedHost, words: tuple[str, ...]) -> None:
    assert shell(host, ">/dev/full", *words).returncode == 4
    assert shell(host, ">/dev/full 2>/dev/full", *words).returncode == 4


def test_a_refusal_that_nobody_can_hear_is_one_all_the_same(host: SimulatedHost) -> None:
    assert shell(host, "2>/dev/full", "prepare", "vm1", "0000:09:00.0").returncode == 1
    assert shell(host, "2>&-", "prepare", "vm1", "nonsense").returncode == 2
    assert shell(host, "2>/dev/full", "-vv", "prepare", "vm1", NIC).returncode == 0
    assert lent(host) == [NIC]


PAIRS = ("<&- >&-", ">&- 2>&-", "<&- 2>&-")


@pytest.mark.parametrize(
    "closed",
    [
        "<&-",
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        *(pytest.param(p, marks=pytest.mark.long) for p in PAIRS),
    ],
)
def test_closed_streams_change_nothing(host: SimulatedHost, closed: str) -> None:
    before = host.snapshot()
    for words in (("list",), ("show", NIC), ("plan", "vm1", NIC), ("-v", "prepare", "vm1", NIC)):
        assert shell(host, closed, *words).returncode == 0
    assert lent(host) == [NIC]
    assert shell(host, closed, "reattach", "vm1").returncode == 0
    assert lent(host) == []
    assert host.snapshot() == before


def test_an_undo_with_closed_streams_keeps_its_lock_to_the_end(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", errno=5)
    assert shell(host, "<&- >&- 2>&-", "prepare", "vm1", NIC).returncode == 1
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_a_reader_that_goes_away(host: SimulatedHost) -> None:
    for words in (("list",), ("list", "--json"), ("prepare", "vm1", NIC), ("status", "--json")):
        assert shell(host, "| true", *words).returncode == 0
    assert lent(host) == [NIC]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_when_all_is_done_stops_the_answer_alone(
    host: SimulatedHost, stop: signal.Signals
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    with subprocess.Popen(
        [*COMMAND, "--host", host.root, *QEMU, "prepare", "vm1", NIC],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    ) as command:  # fmt: skip
        assert command.stderr is not None
        wait_until(lambda: _writes_to_stdout(command.pid))
        command.send_signal(stop)
        said = command.stderr.read()
    assert command.returncode == 4
    assert said == (
        f"hostdev: stopped by {stop.name} before it could answer; what was asked for had been done"
        " before; `hostdev status` has what is lent\n"
    )
    assert lent(host) == [NIC]
    os.close(reader)
    os.close(writer)


def _writes_to_stdout(pid: int) -> bool:
    """Whether it waits in a system call that is given descriptor 1 and a buffer (proc(5)).

    A sleep is given clock 1, and flags.
    """
    first, second = (Path(f"/proc/{pid}/syscall").read_text().split() + [""] * 3)[1:3]
    return first == "0x1" and int(second, 16) > 0xFFFF
