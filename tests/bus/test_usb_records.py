"""USB devices and their records, where one of them tells another story than before."""

import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import Connection, Deadlines, Domain, KernelTimeoutError, StateError, hookimpl
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.sample import STICK, connect


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host", deadlines=Deadlines(attribute=2.0))
    host.add_usb(STICK, id="0951:1666", serial="60A4", device=7)
    return host


class Replugs:
    """Another device comes to the port while the prepare is under way."""

    def __init__(self, host: SimulatedHost, number: int) -> None:
        self.host, self.number = host, number

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        self.host.unplug(STICK)
        self.host.add_usb(STICK, id="0951:1666", serial="60A4", device=self.number)


def test_another_number_is_another_device_for_a_prepare(host: SimulatedHost) -> None:
    with (
        connect(host, Replugs(host, 8)) as conn,
        pytest.raises(StateError, match="unplugged or replaced meanwhile"),
    ):
        conn.prepare_hostdevs(Domain("vm1", [STICK]))
    assert host.ledger.records() == []


class Silences(Replugs):
    """And does not answer from then on."""

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        Replugs.hostdev_before_prepare(self)
        self.lock = self.host.hold_lock(STICK)
        self.lock.__enter__()


def test_one_that_may_be_it_and_does_not_answer_is_not_lent(host: SimulatedHost) -> None:
    plugin = Silences(host, 7)
    with connect(host, plugin) as conn:
        with pytest.raises(KernelTimeoutError, match="does not answer"):
            conn.prepare_hostdevs(Domain("vm1", [STICK]))
        plugin.lock.__exit__(None, None, None)
    assert host.ledger.records() == []


def test_a_serial_is_not_recalled_for_other_ids(host: SimulatedHost, conn: Connection) -> None:
    """A device that is authorized anew may have other descriptors in the same directory."""
    conn.prepare_hostdevs(Domain("vm1", [STICK]))
    assert [device.serial for device in conn.get_active_usb_hostdev_list()] == ["60A4"]
    Path(host.path(f"sys/bus/usb/devices/{STICK}/idProduct")).write_text("1667\n")
    with host.hold_lock(STICK):
        (device,) = conn.get_active_usb_hostdev_list()
    assert (device.product, device.serial) == ("1667", None)
    assert conn.reattach_hostdevs("vm1") == (STICK,)


def test_a_record_without_an_identity_is_known_by_its_port(host: SimulatedHost) -> None:
    assert run("prepare", "vm1", STICK, host=host).returncode == 0
    (record,) = host.ledger.records()
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(usb="a stick"))
    assert "vm1" in run("show", STICK, host=host).stdout
    by_ids = run("reattach", "vm1", "0951:1666", host=host)
    assert "is given back" not in by_ids.stdout
    assert run("reattach", "vm1", STICK, host=host).stdout == f"{STICK} is given back\n"
    assert host.ledger.records() == []


FORKS = """
import os, sys
import hostdev_qemu
from hostdev_core import Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost
registry = Registry()
registry.register(hostdev_qemu, name="qemu")
host = SimulatedHost.open(sys.argv[1])
with open_connection("qemu:///system", host=host, registry=registry) as conn:
    for begin in (lambda: None), os.fork:
        if pid := begin():
            os.waitpid(pid, 0)
        print(conn.plan(Domain("vm1", ["1-3"])).devices[0].record.usb, flush=True)
"""


def test_a_fork_of_a_process_that_has_asked_asks_by_itself(host: SimulatedHost) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, host.root], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout) == ("", "001:007 0951:1666 60A4\n" * 3)
