"""hostdev on machines that differ: each device that can be lent is lent and comes home."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    GroupNotViableError,
    NotAssignableError,
    PrepareFlags,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.simulated.captures.document import parse_document
from hostdev_core.testing.contract_parts.base import Untouched
from tests.sample import driver_of

FILES = sorted((Path(__file__).parents[1] / "machines").glob("*.json"))
NAMES = [file.stem for file in FILES]
# What QEMU, or Xen in the dom0, cannot have, beside bridges; for a group, who is in the way.
REFUSED: dict[str, dict[str, str]] = {
    "arm": dict.fromkeys(("0000:01:00.0", "0004:41:00.0"), "has no IOMMU group"),
    "dom0": {},
    "laptop": {
        **{
            f"0000:01:00.{function}": "shares IOMMU group 1 with devices on host drivers"
            for function in range(4)
        },
        **{
            f"0000:00:1f.{function}": "shares IOMMU group 13 with devices on host drivers"
            for function in (0, 3, 4, 5)
        },
        "0000:00:14.2": "IOMMU group 4 with .*: 0000:00:14.0 .* on xhci_hcd",
    },
    "server": {
        "0000:00:14.0": "IOMMU group 4 with .*: 0000:00:14.2 .* on intel_pch_thermal",
        "0000:00:14.2": "IOMMU group 4 with .*: 0000:00:14.0 .* on xhci_hcd",
        **{
            f"0000:00:1f.{function}": "shares IOMMU group 9 with devices on host drivers"
            for function in (0, 2, 4, 5)
        },
        "0000:86:00.0": "has 4 virtual functions .0000:86:00.2, 0000:86:00.3,",
        "0000:86:00.1": "has 2 virtual functions .0000:86:01.2, 0000:86:01.3",
    },
    "vmd": {
        "0000:00:0e.0": "IOMMU group 6 with .*: 10000:e1:00.0 .* on nvme",
        "10000:e1:00.0": "IOMMU group 6 with .*: 0000:00:0e.0 .* on vmd",
        "0000:00:14.2": "IOMMU group 8 with .*: 0000:00:14.0 .* on xhci_hcd",
        **{
            f"0000:00:1f.{function}": "shares IOMMU group 12 with devices on host drivers"
            for function in (0, 3, 4, 5)
        },
    },
}


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> SimulatedHost:
    name: str = request.param
    return SimulatedHost.replay(FILES[NAMES.index(name)], tmp_path / "host")


@pytest.fixture
def conn(host: SimulatedHost) -> Iterator[Connection]:
    uri = "xen:///system" if host.is_dom0 else "qemu:///system"
    with open_connection(uri, host=host) as conn:
        yield conn


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("host", names, indirect=True)


def test_all_are_here() -> None:
    assert NAMES == ["arm", "dom0", "laptop", "server", "vmd"]
    assert {*NAMES} == {*REFUSED}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_says_where_it_is_from_and_has_the_form_of_a_capture(
    file: Path, tmp_path: Path
) -> None:
    text = file.read_text()
    document = parse_document(text.encode())
    assert document.origin.startswith("made by hand from public knowledge")
    assert str(document) == text
    host = SimulatedHost.replay(file, tmp_path / "host")
    captured = parse_document(SimulatedHost.capture(f"{host.root}/sys").encode())
    assert captured._replace(origin=document.origin, comment=document.comment) == document


@on(*NAMES)
def test_every_device_is_lent_and_comes_home_or_is_refused(
    host: SimulatedHost, conn: Connection, request: pytest.FixtureRequest
) -> None:
    refused = REFUSED[request.node.callspec.params["host"]]
    bridges = {d.name for d in conn.list_devices() if "0604" in getattr(d, "class_code", "")}
    lent = 0
    for device in conn.list_devices():
        domain = Domain("vm1", [device.name])
        reason = "is a bridge" if device.name in bridges else refused.get(device.name)
        if reason is not None:
            with Untouched(host), pytest.raises(NotAssignableError, match=reason):
                conn.prepare_hostdevs(domain)
            continue
        with Untouched(host):
            conn.plan(domain)
        before = host.snapshot()
        (assignment,) = conn.prepare_hostdevs(domain)
        assert assignment.device is not None
        assert assignment.device.name == device.name
        if device.kind == "pci":
            driver = conn.hostdev_driver
            assert driver.accepts_stub(str(driver_of(host, device.name)))  # type: ignore[union-attr]
        assert conn.reattach_hostdevs("vm1") == (device.name,)
        assert host.snapshot() == before
        assert host.ledger.records() == []
        lent += 1
    assert lent + len(bridges) + len(refused) == len(conn.list_devices())
    assert lent


@on(*NAMES)
def test_all_of_a_machine_at_once(host: SimulatedHost, conn: Connection, request: Any) -> None:
    refused = REFUSED[request.node.callspec.params["host"]]
    gone = [d for d in conn.list_devices() if getattr(d, "class_code", "")[:4] in {"0604", "0c03"}]
    without = {*refused, *(device.name for device in gone)}
    names = [device.name for device in conn.list_devices() if device.name not in without]
    before = host.snapshot()
    assert len(conn.prepare_hostdevs(Domain("vm1", names))) == len(names)
    assert {*conn.reattach_hostdevs("vm1")} == {*names}
    assert host.snapshot() == before
    assert host.ledger.records() == []


@on("laptop")
def test_a_gpu_goes_with_all_of_its_functions(host: SimulatedHost, conn: Connection) -> None:
    functions = [f"0000:01:00.{number}" for number in range(4)]
    with pytest.raises(GroupNotViableError) as caught:
        conn.plan(Domain("vm1", functions[:1]))
    assert [*caught.value.culprits] == functions[1:]  # not the bridge
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", functions[:1]), PrepareFlags.WHOLE_GROUP)
    assert {driver_of(host, name) for name in functions} == {"vfio-pci"}
    assert driver_of(host, "0000:00:01.0") == "pcieport"
    assert driver_of(host, "0000:00:02.0") == "i915"
    assert {*conn.reattach_hostdevs("vm1")} == {*functions}
    assert host.snapshot() == before
    assert len(conn.prepare_hostdevs(Domain("vm1", functions))) == 4
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@on("laptop")
def test_usb_devices_behind_thunderbolt_go_with_their_controller(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    (receiver,) = (d for d in conn.list_devices() if d.name == "3-1")
    assert getattr(receiver, "controller", None) == "0000:39:00.0"
    conn.prepare_hostdevs(Domain("vm1", ["3-1"]))
    with Untouched(host), pytest.raises(DeviceInUseError):
        conn.prepare_hostdevs(Domain("vm2", ["0000:39:00.0"]))
    conn.reattach_hostdevs("vm1")
    conn.prepare_hostdevs(Domain("vm2", ["0000:39:00.0"]))
    assert "3-1" not in {device.name for device in conn.list_devices()}
    conn.reattach_hostdevs("vm2")
    assert host.snapshot() == before


@on("server")
def test_a_variant_driver_is_chosen_for_virtual_functions(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", ["86:00.2", "86:00.5", "86:01.2", "3b:00.0"]))
    drivers = [driver_of(host, f"0000:{name}") for name in ("86:00.2", "86:00.5", "3b:00.0")]
    assert drivers == ["mlx5-vfio-pci", "mlx5-vfio-pci", "vfio-pci"]
    with Untouched(host), pytest.raises(DeviceInUseError, match=r"0000:86:00\.2, .* 'vm1'"):
        conn.prepare_hostdevs(Domain("vm2", ["86:00.0"]))
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@on("vmd")
@pytest.mark.parametrize("name", ["0000:00:0e.0", "10000:e1:00.0"])
def test_what_a_driver_has_made_is_not_taken_from_under_its_users(
    host: SimulatedHost, conn: Connection, name: str
) -> None:
    reason = r"0000:00:0e\.0 has PCI functions .*\(10000:e0:06\.0, 10000:e1:00\.0\), .* from vmd"
    with Untouched(host), pytest.raises(NotAssignableError, match=reason):
        conn.prepare_hostdevs(Domain("vm1", [name]), PrepareFlags.WHOLE_GROUP)
    with Untouched(host), pytest.raises(NotAssignableError, match=reason):
        conn.detach_device("0000:00:0e.0")


@on("vmd")
def test_a_controller_is_lent_without_what_its_driver_makes(
    host: SimulatedHost, conn: Connection
) -> None:
    name, before = "0000:00:0e.0", host.snapshot()
    host.sysfs.write("bus/pci/drivers/vmd/unbind", name)
    without = host.snapshot()
    assert {*before} - {*without} == {"10000:e0:06.0", "10000:e1:00.0"}
    conn.prepare_hostdevs(Domain("vm1", [name]))
    assert driver_of(host, name) == "vfio-pci"
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == without
    host.sysfs.write("bus/pci/drivers/vmd/bind", name)
    assert host.snapshot() == before


@on("server")
def test_virtual_functions_go_and_come(host: SimulatedHost, conn: Connection) -> None:
    numvfs = "bus/pci/devices/0000:86:00.0/sriov_numvfs"
    assert host.sysfs.read(numvfs) == "4"
    host.sysfs.write(numvfs, "0")
    assert "0000:86:00.2" not in host.snapshot()
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", ["86:00.0"]))
    assert driver_of(host, "0000:86:00.0") == "vfio-pci"
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@on("server")
def test_the_graphics_of_a_bmc_share_a_group_with_a_bridge_only(
    host: SimulatedHost, conn: Connection
) -> None:
    plan = conn.plan(Domain("vm1", ["03:00.0"]), PrepareFlags.WHOLE_GROUP)
    assert [device.record.address for device in plan.devices] == ["0000:03:00.0"]


@on("dom0")
def test_what_was_on_pciback_stays_there(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    assert before["pciback"]["slots"] == ["0000:04:00.2", "0000:04:00.3"]
    conn.prepare_hostdevs(Domain("vm1", ["04:00.1", "04:00.2"]))
    assert driver_of(host, "0000:04:00.1") == "pciback"
    assert "0000:04:00.1" in str(host.snapshot()["pciback"]["slots"])
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
