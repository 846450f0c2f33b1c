"""What is told while a change takes its time: on a terminal, each device's step, the oldest first."""

import os
import pty
import re
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hostdev_core import Domain
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, QEMU, start
from tests.sample import DISK, NIC, connect

pytestmark = pytest.mark.quick_cases
Read = Callable[[str], str]


@contextmanager
def on_a_terminal(host: SimulatedHost, *words: str, **environment: str) -> Iterator[Read]:
    """Run a command with a terminal as its standard error; `read` what it shows up to a pattern.

    Each piece that replaced the line before is on a line of its own.
    """
    mine, its = pty.openpty()
    line = [*COMMAND, *QEMU, *words, "--host", host.root]
    with subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=its, env=os.environ | environment
    ) as command:
        os.close(its)
        shown = ""

        def read(pattern: str) -> str:
            nonlocal shown
            while not (found := re.search(pattern, shown)):
                assert select.select([mine], [], [], 60)[0], shown
                shown += os.read(mine, 4096).decode().replace("\r\x1b[K", "\n")
            return found[0]

        try:
            yield read
            assert command.wait(60) == 0
        finally:
            host.release()
            os.close(mine)


def test_the_step_that_hangs_is_shown_first_with_its_seconds(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with on_a_terminal(host, "prepare", "vm1", NIC) as read:
        assert read(rf"\nunbind {NIC} from e1000e, [2-9] s")
        host.release()


def test_every_devices_step_is_told_as_far_as_there_is_room(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    host.on_write("*/nvme/unbind", hang=True)
    both = r"\nunbind \S+ from \w+, \d+ s; unbind \S+ from \w+, \d+ s"
    with on_a_terminal(host, "prepare", "vm1", NIC, DISK, COLUMNS="200") as read:
        assert {NIC, DISK} <= {*read(both).split()}
        host.wait_hanging(2)
        host.release()


def test_a_narrow_terminal_shows_the_oldest_and_how_many_more(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    host.on_write("*/nvme/unbind", hang=True)
    with on_a_terminal(host, "prepare", "vm1", NIC, DISK, COLUMNS="40") as read:
        line = read(r"\n[^\n]+ \(and 1 more\)(?=\n)")
        assert len(line) - 1 < 40
        host.wait_hanging(2)
        host.release()


def test_a_terminal_that_cannot_erase_gets_no_such_line(host: SimulatedHost) -> None:
    mine, its = pty.openpty()
    line = [*COMMAND, *QEMU, "prepare", "vm1", NIC, "--host", host.root]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=its,
                          env=os.environ | {"TERM": "dumb"}) as command:  # fmt: skip
        assert command.wait(60) == 0
    assert not select.select([mine], [], [], 0)[0]  # its other end is open: nothing was written
    os.close(its)
    os.close(mine)


def test_nothing_of_it_goes_into_a_pipe(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with start(*QEMU, "prepare", "vm1", NIC, host=host) as command:
        host.wait_hanging()
        host.release()
        shown, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (0, "")
    assert shown == f"-device vfio-pci,host={NIC}\n"


@pytest.mark.parametrize("words", [("status",), ("demo",)])
def test_no_color_takes_the_colours_away(host: SimulatedHost, words: tuple[str, ...]) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    if words == ("status",):
        words = (*words, "--host", host.root)
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        mine, its = pty.openpty()
        with subprocess.Popen([*COMMAND, *words], stdout=its, stderr=subprocess.DEVNULL,
                              env=os.environ | environment) as command:  # fmt: skip
            os.close(its)
            data = b""
            try:
                while part := os.read(mine, 65536):
                    data += part
            except OSError:
                pass
            os.close(mine)
        assert command.returncode == 0
        assert (re.search(rb"\x1b\[(?:\d+;)*3\dm", data) is not None) == coloured
