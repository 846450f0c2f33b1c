"""The contract: a write that the kernel refuses leaves nothing behind."""

import errno
import os
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import pytest

from hostdev_core import Connection, Domain, HostdevError, KernelError, ReattachError
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import DISK, GPU, NIC, SOUND, ContractBase, add_card

Write = tuple[str, str]


class Case(NamedTuple):
    """Devices that are lent together."""

    add: Callable[[SimulatedHost], object]
    devices: tuple[str, ...]


def _one(host: SimulatedHost) -> None:
    add_card(host, NIC, "e1000e", 1)


def _groups(host: SimulatedHost) -> None:
    add_card(host, NIC, "e1000e", 1, driver_override="e1000e")
    add_card(host, DISK, "nvme", 2, id="144d:a808", class_="010802")
    add_card(host, "0000:04:00.0", None, 4)


def _shared(host: SimulatedHost) -> None:
    add_card(host, GPU, "nouveau", 3, id="10de:2204", class_="030000")
    add_card(host, SOUND, "snd_hda_intel", 3, id="10de:1aef", class_="040300")


CASES = {
    "one device": Case(_one, (NIC,)),
    "several groups": Case(_groups, (NIC, DISK, "0000:04:00.0")),
    "one group": Case(_shared, (GPU, SOUND)),
}
ERRNOS = {errno.errorcode[number]: number for number in (errno.EBUSY, errno.ENODEV, errno.EIO)}
# One device meets every errno at every write; the others meet them in turn, which takes less time.
RUNS = [
    *((CASES["one device"], [number]) for number in ERRNOS.values()),
    *((case, [*ERRNOS.values()]) for name, case in CASES.items() if name != "one device"),
]
each_run = pytest.mark.parametrize(
    ("case", "errnos"), RUNS, ids=[*(f"one device-{name}" for name in ERRNOS), *[*CASES][1:]]
)


class Faults(ContractBase):
    """Every single write fails once, on a machine of its own."""

    def fresh(self, path: Path, case: Case) -> SimulatedHost:
        """A machine with the devices of a case."""
        host = self.make_host(path)
        case.add(host)
        return host

    def dry_run(self, path: Path, case: Case) -> tuple[list[Write], list[Write]]:
        """The writes of a prepare and of a reattach that must succeed."""
        host = self.fresh(path, case)
        with self.connect(host) as conn:
            conn.prepare_hostdevs(Domain("vm1", [*case.devices]))
            prepared = host.writes()
            host.clear_writes()
            conn.reattach_hostdevs("vm1")
        return [write for write in prepared if not write[0].endswith("/reset")], host.writes()

    @each_run
    def test_a_failing_prepare_leaves_everything_as_it_was(
        self, tmp_path: Path, case: Case, errnos: list[int]
    ) -> None:
        writes, _ = self.dry_run(tmp_path / "dry", case)
        assert writes
        for index, (write, number) in enumerate(zip(writes, cycle(errnos), strict=False)):
            host = self.fresh(tmp_path / str(index), case)
            with self.connect(host) as conn:
                self.fail_prepare(host, conn, case, write, number)

    def fail_prepare(
        self, host: SimulatedHost, conn: Connection, case: Case, write: Write, number: int
    ) -> None:
        """Let one write of a prepare fail; the next prepare succeeds."""
        before, domain = host.snapshot(), Domain("vm1", [*case.devices])
        fail_once(host, write, number)
        with pytest.raises(HostdevError) as raised:
            conn.prepare_hostdevs(domain)
        assert os.strerror(number) in str(raised.value), (write, raised.value)
        assert getattr(raised.value, "__notes__", []) == [], write
        assert host.snapshot() == before, write
        assert host.ledger.records() == [], write
        conn.prepare_hostdevs(domain)
        conn.reattach_hostdevs(domain)
        assert host.snapshot() == before, write

    @each_run
    def test_a_failing_reattach_brings_the_others_home_and_can_be_repeated(
        self, tmp_path: Path, case: Case, errnos: list[int]
    ) -> None:
        _, writes = self.dry_run(tmp_path / "dry", case)
        assert writes
        for index, (write, number) in enumerate(zip(writes, cycle(errnos), strict=False)):
            host = self.fresh(tmp_path / str(index), case)
            with self.connect(host) as conn:
                self.fail_reattach(host, conn, case, write, number)

    def fail_reattach(
        self, host: SimulatedHost, conn: Connection, case: Case, write: Write, number: int
    ) -> None:
        """Let one write of a reattach fail; the next reattach clears what is left."""
        before = host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", [*case.devices]))
        fail_once(host, write, number)
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (reason,) = raised.value.exceptions
        assert isinstance(reason, KernelError), write
        assert reason.errno == number, write
        (record,) = host.ledger.records()
        assert record.address in str(raised.value), write
        assert record.stuck is not None, write
        assert os.strerror(number) in record.stuck, write
        after = host.snapshot()
        for name in {*case.devices} - {record.address}:
            assert after[name] == before[name], write
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before, write
        assert host.ledger.records() == [], write

    def test_a_write_without_effect_is_noticed(self, tmp_path: Path) -> None:
        case = CASES["one group"]
        writes, _ = self.dry_run(tmp_path / "dry", case)
        for index, (path, value) in enumerate(writes):
            if path == "modprobe":
                continue
            host = self.fresh(tmp_path / str(index), case)
            before = host.snapshot()
            host.on_write(path, value=value.rstrip("\n"), effect=False)
            with self.connect(host) as conn, pytest.raises(KernelError):
                conn.prepare_hostdevs(Domain("vm1", [*case.devices]))
            assert host.snapshot() == before, (path, value)
            assert host.ledger.records() == [], (path, value)


def fail_once(host: SimulatedHost, write: Write, number: int) -> None:
    """Let the next such write fail."""
    path, value = write
    host.on_write(path, value=value.rstrip("\n"), errno=number)
