"""Under Xen: a card that is plugged in while another one's slot of pciback seizes it goes to its driver."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import Domain, ReattachError
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import killed_at
from tests.sample import NIC, connect_xen

OVERRIDE = f"bus/pci/devices/{NIC}/driver_override"
BACKEND = "/local/domain/0/backend/pci/7/0"
KEY = "/libxl/pci/0000-01-00-0/driver_path"


def machine(folder: Path, kernel_driver: str | None = "e1000e", **card: Any) -> SimulatedHost:
    host = SimulatedHost.create(folder, dom0=True)
    host.add_pci(NIC, kernel_driver=kernel_driver, **card)
    return host


def exchange(host: SimulatedHost, **card: Any) -> dict[str, object]:
    """Plug another card in; what it would be where nobody had a slot."""
    host.unplug(NIC)
    host.add_pci(NIC, id="8086:1521", kernel_driver="igb", **card)
    wanted = {**host.snapshot()[NIC], "kernel_driver": "igb"}
    return {NIC: wanted, "pciback": {"slots": []}}


def replaced(folder: Path, **card: Any) -> tuple[SimulatedHost, dict[str, object]]:
    """A card was lent, and another one is there, which the slot has seized."""
    host = machine(folder)
    with connect_xen(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    wanted = exchange(host, **card)
    assert host.snapshot()[NIC]["kernel_driver"] == "pciback"
    return host, wanted


def give_back(host: SimulatedHost, watcher: Callable[[str], None] | None = None) -> None:
    with connect_xen(host) as conn:
        conn.host.watch(watcher)
        conn.reattach_hostdevs("vm1")


def check_free(host: SimulatedHost, wanted: dict[str, object]) -> None:
    now = host.snapshot()
    assert {name: now[name] for name in wanted} == wanted
    assert host.ledger.records() == []
    assert host.xenstore.read(KEY) is None
    assert operations.list_ids(host.state_dir) == []


@pytest.mark.parametrize("override", [None, "igb"])
@pytest.mark.parametrize("power", ["on", "auto"])
def test_it_goes_to_its_driver(tmp_path: Path, override: str | None, power: str) -> None:
    host, wanted = replaced(tmp_path / "dom0", driver_override=override, power_control=power)
    give_back(host)
    check_free(host, wanted)


def test_one_that_no_driver_wants_has_none(tmp_path: Path) -> None:
    host = machine(tmp_path / "dom0")
    with connect_xen(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.unplug(NIC)
    host.add_pci(NIC, id="1af4:1110")
    give_back(host)
    assert host.snapshot()[NIC]["kernel_driver"] is None
    assert host.ledger.records() == []


def test_one_that_another_driver_was_faster_to_take_is_left_alone(tmp_path: Path) -> None:
    """Also one that somebody has taken from its driver."""
    for driver in "igb", None:
        host, wanted = replaced(tmp_path / f"{driver}")
        host.sysfs.write("bus/pci/drivers/pciback/unbind", NIC)
        if driver:
            host.sysfs.write(f"bus/pci/drivers/{driver}/bind", NIC)
        host.clear_writes()
        give_back(host)
        assert host.writes() == [("bus/pci/drivers/pciback/remove_slot", NIC)]
        assert host.snapshot()[NIC]["kernel_driver"] == driver
        assert host.ledger.records() == []
        assert wanted["pciback"] == host.snapshot()["pciback"]


def test_one_in_the_place_of_a_detached_one(tmp_path: Path) -> None:
    host = machine(tmp_path / "dom0")
    with connect_xen(host) as conn:
        conn.detach_device(NIC)
        wanted = exchange(host)
        conn.reattach_device(NIC)
    check_free(host, wanted)


def hand_over(host: SimulatedHost) -> None:
    host.xenstore.write("/local/domain/7/name", "guest")
    host.xenstore.write(f"{BACKEND}/dev-0", NIC)


WISHES: dict[str, tuple[Callable[[SimulatedHost], object], Callable[[SimulatedHost], object]]] = {
    r"Xen domain guest \(id 7\) has it": (
        hand_over,
        lambda host: host.xenstore.remove(BACKEND),
    ),
    "`xl pci-assignable-remove 0000:01:00.0` first": (
        lambda host: host.xenstore.write(KEY, "/sys/bus/pci/drivers/igb"),
        lambda host: host.xenstore.remove(KEY),
    ),
    "by a driver_override that hostdev did not set": (
        lambda host: host.sysfs.write(OVERRIDE, "pciback"),
        lambda host: host.sysfs.write(OVERRIDE, "\n"),
    ),
}


@pytest.mark.parametrize("reason", WISHES)
def test_one_that_somebody_wants_on_pciback_stays_there(tmp_path: Path, reason: str) -> None:
    host, wanted = replaced(tmp_path / "dom0")
    wish, leave = WISHES[reason]
    wish(host)
    for _ in range(2):
        with pytest.raises(ReattachError) as raised:
            give_back(host)
        with pytest.raises(Exception, match=reason):
            raise raised.value.exceptions[0]
        (record,) = host.ledger.records()
        assert str(raised.value.exceptions[0]) == record.stuck
        assert host.snapshot()[NIC]["kernel_driver"] == "pciback"
        assert host.snapshot()["pciback"] == {"slots": [NIC]}
    leave(host)
    give_back(host)
    check_free(host, wanted)


def test_a_write_fails(tmp_path: Path) -> None:
    for number in count(1):
        host, wanted = replaced(tmp_path / f"{number}", driver_override="igb")
        writes = count(1)

        def fail(what: str, writes: "count[int]" = writes, number: int = number) -> None:
            if what.startswith(("before write", "before xenstore")) and next(writes) == number:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        try:
            give_back(host, fail)
        except ReattachError:
            (record,) = host.ledger.records()
            assert "EIO" in (record.stuck or "")
            give_back(host)
            check_free(host, wanted)
        else:
            break
    assert number > 3


@pytest.mark.parametrize("card", [{}, {"driver_override": "igb"}])
def test_who_gives_it_back_is_killed_at_every_moment(tmp_path: Path, card: dict[str, Any]) -> None:
    for number in count(1):
        host, wanted = replaced(tmp_path / f"{number}", **card)
        killed = killed_at(number, partial(give_back, host))
        with connect_xen(host) as conn:
            conn.recover()
            conn.reattach_hostdevs("vm1")  # the kill may have come before its claim
        check_free(host, wanted)
        if not killed:
            break
    assert number > 10


@pytest.mark.parametrize("found", ["e1000e", None])
def test_it_comes_at_any_moment_of_the_way_home(tmp_path: Path, found: str | None) -> None:
    """Also into an empty slot, after the look that found nothing there."""
    for gone in False, True:
        for number in count(1):
            host = machine(tmp_path / f"{gone}-{number}", found)
            other, moments = SimulatedHost.open(host.root), count(1)
            wanted: dict[str, object] = {}
            with connect_xen(host) as conn:
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            if gone:
                host.unplug(NIC)

            def come(
                what: str,
                other: SimulatedHost = other,
                moments: "count[int]" = moments,
                number: int = number,
                wanted: dict[str, object] = wanted,
            ) -> None:
                if next(moments) == number:
                    if NIC not in other.snapshot():
                        other.add_pci(NIC)
                    wanted |= exchange(other, driver_override="igb", power_control="auto")

            with suppress(ReattachError):
                give_back(host, come)
            give_back(host)
            if not wanted:
                break
            check_free(host, wanted)
        assert number > 7
