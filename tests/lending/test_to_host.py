"""Devices on a stub that no record knows: the ledger was lost, or somebody else put them there."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    LocalHostdevDriver,
    PCIAddress,
    PCIHostdev,
    ReattachError,
    Registry,
    Returned,
    StateError,
    UnsupportedError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run
from tests.helpers.foreign_driver import Foreign
from tests.helpers.processes import killed_at
from tests.sample import DISK, NIC, Brings, make_host, make_registry


def lose(host: SimulatedHost) -> None:
    shutil.rmtree(host.state_dir)


@pytest.fixture
def before(host: SimulatedHost, conn: Connection) -> dict[str, dict[str, object]]:
    """Both are lent, and the ledger is lost; how they were found."""
    found = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    lose(host)
    return found


def test_they_are_named_with_the_way_home(
    host: SimulatedHost, conn: Connection, before: dict[str, object]
) -> None:
    for command in ("status", "list"):
        done = run(command, host=host)
        for name in (NIC, DISK):
            assert f"hostdev device reattach --to-host {name}" in done.stderr
    assert "nothing is lent" not in run("status", host=host).stdout
    assert f"hostdev device reattach --to-host {NIC}" in run("show", NIC, host=host).stdout
    unrecorded = [{"address": n, "kernel_driver": "vfio-pci"} for n in (NIC, DISK)]
    assert ask("status", host=host)["unrecorded"] == unrecorded
    cards = {d["address"]: d["unrecorded"] for d in ask("list", host=host)["devices"]}
    assert cards == {NIC: True, DISK: True}
    assert f"--to-host {NIC}" in " ".join(conn.plan(Domain("vm2", [NIC])).warnings)
    conn.prepare_hostdevs(Domain("vm2", [NIC]))
    assert [d["address"] for d in ask("status", host=host)["unrecorded"]] == [DISK]


@pytest.mark.long
def test_who_lends_one_is_told_too(
    host: SimulatedHost, conn: Connection, before: dict[str, object]
) -> None:
    """It returns to the stub, as it was found: that is the moment to say so."""
    found = host.snapshot()
    for command in (("prepare", "vm2", NIC), ("device", "detach", DISK)):
        done = run(*command, host=host)
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert f"{command[-1]} is on vfio-pci already and returns there" in line
        assert f"`hostdev device reattach --to-host {command[-1]}`" in line
    assert run("prepare", "vm3", DISK, host=host).stderr == ""  # its record knows it
    for command in (("reattach", "vm2"), ("reattach", "vm3"), ("device", "reattach", DISK)):
        assert run(*command, host=host).returncode == 0
    assert host.snapshot() == found


@pytest.mark.parametrize("stub", ["pci-stub", "mlx5-vfio-pci", "pciback"])
def test_one_that_is_on_another_stub_than_the_planned_one(
    host: SimulatedHost, conn: Connection, stub: str
) -> None:
    card = "0000:05:00.0"
    host.add_driver(stub, module=stub)
    host.add_pci(card, id="1af4:1041", kernel_driver=stub, driver_override=stub)
    found = host.snapshot()
    wanted = Domain("vm2", [PCIHostdev(address=PCIAddress.parse(card), stub="vfio-pci")])
    words = f"{card} is on {stub} already and returns there"
    plan = conn.plan(wanted)
    assert plan.devices[0].record.stub == "vfio-pci"
    assert words in " ".join(plan.warnings)
    done = run("prepare", "vm2", card, "--stub", "vfio-pci", host=host)
    assert words in done.stderr
    assert f"hostdev device reattach --to-host {card}" in done.stderr
    conn.reattach_hostdevs("vm2")
    assert host.snapshot() == found


def test_one_on_its_own_driver_is_no_word_worth(host: SimulatedHost, conn: Connection) -> None:
    assert "returns there" not in " ".join(conn.plan(Domain("vm2", [NIC])).warnings)
    assert "returns there" not in run("prepare", "vm2", NIC, host=host).stderr


def test_each_goes_to_the_hosts_own_driver(
    host: SimulatedHost, conn: Connection, before: dict[str, object]
) -> None:
    assert conn.reattach_device(NIC, to_host=True) == (NIC,)
    done = run("device", "reattach", "--to-host", DISK, host=host)
    assert (done.returncode, done.stdout) == (0, f"{DISK} is on nvme, the host's own driver\n")
    assert host.snapshot() == before
    assert host.ledger.records() == []
    assert run("status", host=host).stderr == ""
    with pytest.raises(StateError, match="on e1000e, which is no stub driver"):
        conn.reattach_device(NIC, to_host=True)


@pytest.mark.parametrize("how", ["built in", "not loaded", "several drivers", "other name"])
def test_whose_driver_is_not_known_by_name(host: SimulatedHost, conn: Connection, how: str) -> None:
    card, ids = "0000:05:00.0", ("1af4:1041",)
    module = None if how == "built in" else "cardmod"
    host.add_driver("carddrv", module=module, ids=ids, loaded=how != "not loaded")
    if how == "several drivers":
        host.add_driver("another", module="cardmod", ids=("1af4:9999",))
    host.add_pci(card, id=ids[0], kernel_driver="vfio-pci", driver_override="vfio-pci")
    assert conn.reattach_device(card, to_host=True) == (card,)
    now = host.snapshot()[card]
    assert (now["kernel_driver"], now["driver_override"]) == ("carddrv", "(null)")
    assert host.ledger.records() == []


def test_one_that_no_driver_takes_is_stuck_and_says_so(
    host: SimulatedHost, conn: Connection
) -> None:
    card = "0000:05:00.0"
    host.add_pci(card, id="1af4:1041", kernel_driver="vfio-pci", driver_override="vfio-pci")
    with pytest.raises(ReattachError) as raised:
        conn.reattach_device(card, to_host=True)
    assert "none took it" in str(raised.value.exceptions[0])
    assert run("status", host=host).returncode == 3
    host.add_driver("carddrv", module="cardmod", ids=("1af4:1041",))
    assert conn.recover() == (card,)
    assert host.snapshot()[card]["kernel_driver"] == "carddrv"
    assert host.ledger.records() == []


def test_who_has_it_keeps_it(host: SimulatedHost, conn: Connection) -> None:
    found = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.detach_device(DISK)
    lent = host.snapshot(), host.ledger.records()
    for name in (NIC, DISK):
        with pytest.raises(DeviceInUseError):
            conn.reattach_device(name, to_host=True)
    assert (host.snapshot(), host.ledger.records()) == lent
    lose(host)
    with host.hold(NIC), pytest.raises(DeviceInUseError):
        conn.reattach_device(NIC, to_host=True)
    assert (host.snapshot(), host.ledger.records()) == (lent[0], [])
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "foreign")
    with pytest.raises(StateError, match="foreign"):
        conn.reattach_device(NIC, to_host=True)
    assert host.ledger.records() == []
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "vfio-pci")
    for name in (NIC, DISK):
        conn.reattach_device(name, to_host=True)
    assert host.snapshot() == found


@pytest.mark.parametrize("built_in", [False, True])
def test_a_death_at_any_moment_is_made_good_by_recovery(tmp_path: Path, built_in: bool) -> None:
    for moment in range(1, 60):
        host = make_host(tmp_path / f"{moment}")
        if built_in:
            host.add_driver("e1000e", ids=("8086:10d3",))
        found = host.snapshot()
        with _connected(host) as conn:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
            lent = host.snapshot()
            lose(host)
            if not _dies_at(host, moment):
                assert host.snapshot() == found
                return
            conn.recover()
            assert host.snapshot() in (found, lent)
            assert host.ledger.records() == []
            if host.snapshot() == lent:
                conn.reattach_device(NIC, to_host=True)
            assert host.snapshot() == found
    raise AssertionError("it never comes to its end")


def _connected(host: SimulatedHost) -> Connection:
    registry = make_registry()
    return open_connection("qemu:///system", host=host, registry=registry)


def _dies_at(host: SimulatedHost, moment: int) -> bool:
    def send(watcher: Callable[[str], None]) -> None:
        conn = _connected(SimulatedHost.open(host.root))
        conn.host.watch(watcher)
        conn.reattach_device(NIC, to_host=True)

    return killed_at(moment, send)


def test_a_blacklisted_driver_is_not_loaded_for_it(host: SimulatedHost, conn: Connection) -> None:
    """No driver that the kernel has takes it: it is stuck until the administrator loads one."""
    card = "0000:05:00.0"
    host.add_driver("nouveau", module="nouveau", loaded=False, ids=("10de:1b06",), blacklisted=True)
    host.add_pci(
        card, id="10de:1b06", kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=9
    )
    with pytest.raises(ReattachError) as raised:
        conn.reattach_device(card, to_host=True)
    error = raised.value.by_device[card]
    assert "load the module of its driver, then `hostdev recover`" in str(error)
    assert not host.modules.is_loaded("nouveau")
    (record,) = host.ledger.records()
    assert (record.address, record.stuck) == (card, str(error))
    host.modules.load("nouveau")
    assert conn.recover() == (card,)
    assert host.sysfs.link(f"bus/pci/devices/{card}/driver") == "nouveau"
    assert host.ledger.records() == []


class EarlierDriver(LocalHostdevDriver):
    """From before there was `to_host`."""

    name = "earlier"
    uri_schemes = ("earlier",)
    stubs = ("vfio-pci",)
    asked: str | None = None

    def reattach_device(self, conn: Connection, address: str) -> None:  # type: ignore[override]
        type(self).asked = address


@pytest.fixture
def earlier(host: SimulatedHost) -> Iterator[Connection]:
    registry = Registry()
    registry.register(Brings(EarlierDriver()), name="earlier")
    with open_connection("earlier:///x", host=host, registry=registry) as conn:
        yield conn


def test_a_driver_from_before_is_asked_as_before(earlier: Connection) -> None:
    assert earlier.reattach_device(NIC) == (NIC,)
    assert EarlierDriver.asked == NIC
    with pytest.raises(UnsupportedError, match="to_host"):
        earlier.reattach_device(NIC, to_host=True)


class OwnStub(LocalHostdevDriver):
    """It has devices on a stub driver of its own, too."""

    name = "own-stub"
    uri_schemes = ("own-stub",)
    stubs = ("vfio-pci",)

    def accepts_stub(self, kernel_driver: str) -> bool:
        return kernel_driver in {"vfio-pci", "own_stub"}


class HandsOn(Foreign):
    """It hands a call on to a driver that no plugin has registered."""

    name = "hands-on"
    uri_schemes = ("hands-on",)

    def reattach_device(self, conn: Connection, address: str, *, to_host: bool = False) -> Returned:
        return OwnStub().reattach_device(conn, address, to_host=to_host)


def test_the_driver_that_makes_the_call_is_asked_whether_it_is_a_stub(host: SimulatedHost) -> None:
    """Not the first that is registered, which takes it for a driver of the host's."""
    card = "0000:05:00.0"
    host.add_driver("own_stub")
    host.add_pci(card, id="8086:10d3", kernel_driver="own_stub", iommu_group=5)
    registry = make_registry(Brings(HandsOn()))
    with open_connection("hands-on:///x", host=host, registry=registry) as conn:
        assert conn.reattach_device(card, to_host=True) == (card,)
    assert host.sysfs.link(f"bus/pci/devices/{card}/driver") == "e1000e"
    assert host.ledger.records() == []
