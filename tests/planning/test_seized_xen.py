"""Under Xen: a device that a slot of a gone one has taken is explained, lent and sent home as any other."""

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import DeviceInUseError, Domain, ReattachError
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run
from tests.helpers.processes import killed_at
from tests.sample import NIC, XEN, connect_xen, driver_of

PF, VF = "0000:01:00.0", "0000:01:00.1"


def lend(host: SimulatedHost, domain: str, *addresses: str) -> None:
    with connect_xen(host) as conn:
        conn.prepare_hostdevs(Domain(domain, [*addresses]))


def new_functions(folder: Path) -> tuple[SimulatedHost, str]:
    """Virtual functions are lent, removed and made again."""
    host = SimulatedHost.create(folder, dom0=True)
    host.add_driver("igbvf", ids=["8086:1520"])
    host.add_pci(PF, id="8086:1521", kernel_driver="igb", sriov_totalvfs=4)
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "1")
    lend(host, "vm1", VF)
    for number in "0", "1":
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", number)
    return host, VF


def new_card(folder: Path) -> tuple[SimulatedHost, str]:
    """A card is lent, pulled out and put back."""
    host = SimulatedHost.create(folder, dom0=True)
    host.add_pci(NIC, id="8086:10d3", kernel_driver="e1000e")
    lend(host, "vm1", NIC)
    host.unplug(NIC)
    host.add_pci(NIC, id="8086:10d3")
    return host, NIC


Make = Callable[[Path], tuple[SimulatedHost, str]]
BOTH = pytest.mark.parametrize("make", [new_functions, new_card])


def check_free(host: SimulatedHost, address: str) -> None:
    now = host.snapshot()
    assert now[address]["kernel_driver"] == ("e1000e" if address == NIC else "igb")
    assert now[address]["driver_override"] == "(null)"
    assert (now["pciback"], now["xenstore"]) == ({"slots": []}, {})
    assert host.ledger.records() == []
    status = run("status", "-c", XEN, host=host)
    assert (status.returncode, status.stderr) == (0, "")


@BOTH
@pytest.mark.parametrize("domain", ["vm1", "vm2", None])
def test_it_is_lent_and_returns_to_its_own_driver(
    tmp_path: Path, make: Make, domain: str | None
) -> None:
    host, address = make(tmp_path / "dom0")
    assert driver_of(host, address) == "pciback"
    with connect_xen(host) as conn:
        if domain is None:
            conn.detach_device(address)
        else:
            conn.prepare_hostdevs(Domain(domain, [address]))
        (record,) = host.ledger.records()
        assert record.owner is None or record.owner.domain == domain
        assert record.found.kernel_driver not in {None, "pciback"}
        assert driver_of(host, address) == "pciback"
        if domain is None:
            conn.reattach_device(address)
        else:
            conn.reattach_hostdevs(domain)
    check_free(host, address)


@BOTH
def test_a_plan_names_what_ends_first(tmp_path: Path, make: Make) -> None:
    host, address = make(tmp_path / "dom0")
    now, records = host.snapshot(), host.ledger.records()
    with connect_xen(host) as conn, pytest.raises(DeviceInUseError) as raised:
        conn.plan(Domain("vm2", [address]))
    assert "its device is gone: `hostdev reattach vm1` ends its record" in str(raised.value)
    assert "xl" not in str(raised.value).replace("libxl", "")
    assert (host.snapshot(), host.ledger.records()) == (now, records)


@BOTH
def test_only_one_thing_is_said_of_it(tmp_path: Path, make: Make) -> None:
    host, address = make(tmp_path / "dom0")
    for command in "status", "list":
        said = run(command, "-c", XEN, host=host).stderr
        assert ("another device is at" in said, "no record says why" in said) == (True, False)
    status = ask("status", "-c", XEN, host=host)
    assert [drift["what"] for drift in status["drift"]] == ["replaced"]
    assert "has taken it to pciback; `hostdev reattach vm1`" in status["drift"][0]["detail"]
    assert "unrecorded" not in status
    cards = ask("list", "-c", XEN, host=host)["devices"]
    assert [card["unrecorded"] for card in cards if card["address"] == address] == [False]


def test_a_card_that_another_driver_took_is_still_named(tmp_path: Path) -> None:
    """The slot took nobody to pci-stub."""
    host, address = new_card(tmp_path / "dom0")
    host.sysfs.write("bus/pci/drivers/pciback/unbind", address)
    host.sysfs.write(f"bus/pci/devices/{address}/driver_override", "pci-stub")
    host.modules.load("pci-stub")
    assert "no record says why" in run("status", "-c", XEN, host=host).stderr


@BOTH
def test_what_is_said_of_its_way_is_true(tmp_path: Path, make: Make) -> None:
    host, address = make(tmp_path / "text")
    said = run("reattach", "vm1", "-c", XEN, host=host).stdout
    driver = driver_of(host, address)
    assert f"had been taken to its stub and is on {driver} now: its record is removed" in said
    assert "left alone" not in said
    check_free(host, address)
    host, address = make(tmp_path / "json")
    found = ask("reattach", "vm1", "-c", XEN, host=host)
    freed = [{"address": address, "kernel_driver": driver}]
    assert (found["gone"], found["replaced"], found["freed"]) == ([address], [address], freed)


def test_one_that_its_own_driver_has_was_left_alone(tmp_path: Path) -> None:
    host, address = new_card(tmp_path / "dom0")
    host.sysfs.write("bus/pci/drivers/pciback/unbind", address)
    host.sysfs.write("bus/pci/drivers/e1000e/bind", address)
    found = ask("reattach", "vm1", "-c", XEN, host=host)
    assert (found["replaced"], found["freed"]) == ([address], [])
    check_free(host, address)


def test_one_in_the_place_of_a_detached_one(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(NIC, id="8086:10d3", kernel_driver="e1000e")
    with connect_xen(host) as conn:
        conn.detach_device(NIC)
    host.unplug(NIC)
    host.add_pci(NIC, id="8086:10d3")
    found = ask("device", "reattach", NIC, "-c", XEN, host=host)
    freed = [{"address": NIC, "kernel_driver": "e1000e"}]
    assert (found["outcome"], found["freed"]) == ("replaced", freed)
    check_free(host, NIC)


@BOTH
def test_it_is_sent_to_its_own_driver_by_hand(tmp_path: Path, make: Make) -> None:
    host, address = make(tmp_path / "dom0")
    done = run("device", "reattach", "--to-host", address, "-c", XEN, host=host)
    driver = driver_of(host, address)
    assert (done.returncode, done.stdout) == (
        0,
        f"{address} is on {driver}, the host's own driver\n",
    )
    check_free(host, address)


def test_one_that_a_guest_has_is_not_lent_to_another(tmp_path: Path) -> None:
    host, address = new_card(tmp_path / "dom0")
    host.xenstore.write("/local/domain/7/name", "guest")
    host.xenstore.write("/local/domain/0/backend/pci/7/0/dev-0", address)
    with connect_xen(host) as conn, pytest.raises(DeviceInUseError, match=r"guest \(id 7\) has it"):
        conn.prepare_hostdevs(Domain("vm2", [address]))
    assert driver_of(host, address) == "pciback"
    (record,) = host.ledger.records()
    assert str(record.owner).startswith("domain 'vm1'")
    assert "guest (id 7)" in str(record.stuck)
    host.xenstore.remove("/local/domain/0/backend/pci/7")
    lend(host, "vm2", address)
    with connect_xen(host) as conn:
        conn.reattach_hostdevs("vm2")
    check_free(host, address)


def made_assignable(host: SimulatedHost) -> Callable[[], object]:
    """By xl, which keeps the driver that it found."""
    key = f"/libxl/pci/{NIC.replace(':', '-').replace('.', '-')}"
    host.xenstore.write(f"{key}/driver_path", "/sys/bus/pci/drivers/another")
    return partial(host.xenstore.remove, key)


def overridden(host: SimulatedHost) -> Callable[[], object]:
    override = f"bus/pci/devices/{NIC}/driver_override"
    host.sysfs.write(override, "pciback")
    return partial(host.sysfs.write, override, "\n")


def kept(host: SimulatedHost) -> Callable[[], object]:
    host.on_write("*/pciback/unbind", effect=False)
    return lambda: None


@pytest.mark.quick_cases
@pytest.mark.parametrize(
    ("hinder", "words"),
    [
        (made_assignable, "and xl made it assignable"),
        (overridden, "by a driver_override that hostdev did not set"),
        (kept, "is still on pciback after its unbind"),
    ],
)
def test_one_that_is_on_pciback_for_another_reason_stays_there(
    tmp_path: Path, hinder: Callable[[SimulatedHost], Callable[[], object]], words: str
) -> None:
    host, address = new_card(tmp_path / "dom0")
    end = hinder(host)
    with connect_xen(host) as conn:
        with pytest.raises(ReattachError, match=address) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert words in str(error)
        assert driver_of(host, address) == "pciback"
        (record,) = host.ledger.records()
        assert (record.op, words in str(record.stuck)) == (None, True)
        end()
        conn.recover()
    check_free(host, address)


def lend_watched(host: SimulatedHost, address: str, watcher: Callable[[str], None]) -> None:
    with connect_xen(host) as conn:
        conn.host.watch(watcher)
        conn.prepare_hostdevs(Domain("vm2", [address]))


@pytest.mark.long
@BOTH
def test_who_lends_it_is_killed_at_every_moment(tmp_path: Path, make: Make) -> None:
    number = 0
    for number in count(1):
        host, address = make(tmp_path / f"{number}")
        killed = killed_at(number, partial(lend_watched, host, address))
        with connect_xen(host) as conn:
            conn.recover()
            conn.reattach_hostdevs("vm1")
            conn.reattach_hostdevs("vm2")
        check_free(host, address)
        if not killed:
            break
    assert number > 20
