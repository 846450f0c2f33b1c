"""What VFIO makes of an IOMMU group is said before anything is lent."""

import errno
import json
import os
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    GroupNotViableError,
    KernelTimeoutError,
    NotAssignableError,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    VetoError,
    open_connection,
)
from hostdev_core.testing import SimulatedHost, make_sample
from tests.helpers.cli_command import QEMU, run
from tests.sample import GPU, NIC, OTHER, SOUND

pytestmark = pytest.mark.sample

NO_ISOLATION = PCIHostdev(address=NIC, allow={"no-isolation"})


@pytest.fixture
def bare(tmp_path: Path) -> SimulatedHost:
    """A machine without an IOMMU whose VFIO binds devices all the same."""
    host = SimulatedHost.create(tmp_path / "bare", iommu=False)
    host.add_pci(NIC, kernel_driver="e1000e")
    host.add_pci(OTHER, kernel_driver="e1000e")
    allow_noiommu(host, "Y\n")
    return host


def allow_noiommu(host: SimulatedHost, value: str) -> None:
    folder = Path(host.path("sys/module/vfio/parameters"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "enable_unsafe_noiommu_mode").write_text(value)


def rules_of(error: VetoError) -> list[tuple[object, object]]:
    return [(getattr(r, "rule", None), getattr(r, "device", None)) for r in error.refusals]


def write_group(host: SimulatedHost, group: int, name: str, text: str) -> None:
    path = Path(host.path(f"sys/kernel/iommu_groups/{group}/{name}"))
    path.unlink(missing_ok=True)
    path.write_text(text)


# No-IOMMU mode.


def test_without_an_iommu_there_is_no_isolation(bare: SimulatedHost) -> None:
    before = bare.snapshot()
    with open_connection("qemu:///system", host=bare) as conn:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(VetoError) as caught:
                call(Domain("vm1", [NIC]))
            assert rules_of(caught.value) == [("no-isolation", NIC)]
        with pytest.raises(VetoError):
            conn.detach_device(NIC)
    assert bare.snapshot() == before
    assert bare.ledger.records() == []


def test_where_it_is_allowed_the_node_is_the_right_one(bare: SimulatedHost) -> None:
    before = bare.snapshot()
    with open_connection("qemu:///system", host=bare) as conn:
        (nic,) = conn.prepare_hostdevs(Domain("vm1", [NO_ISOLATION]))
        assert nic.node is not None
        assert nic.node.startswith(bare.path("dev/vfio/noiommu-"))
        assert os.path.exists(nic.node)
        assert nic.arguments == ()  # QEMU takes no such device
        (record,) = bare.ledger.records()
        assert nic.node.endswith(f"noiommu-{record.group}")
        with bare.hold(NIC), pytest.raises(ReattachError) as caught:
            conn.reattach_hostdevs("vm1")
        assert isinstance(caught.value.exceptions[0], DeviceInUseError)
        assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert bare.snapshot() == before
    assert not os.path.exists(nic.node)


def test_one_that_is_on_vfio_already(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host", iommu=False)
    allow_noiommu(host, "Y\n")
    host.add_pci(NIC, kernel_driver="vfio-pci", driver_override="vfio-pci")
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        with pytest.raises(VetoError) as caught:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert rules_of(caught.value) == [("no-isolation", NIC)]
        with host.hold(NIC), pytest.raises(DeviceInUseError):
            conn.prepare_hostdevs(Domain("vm1", [NO_ISOLATION]))
        (nic,) = conn.prepare_hostdevs(Domain("vm1", [NO_ISOLATION]))
        assert nic.node is not None
        assert os.path.exists(nic.node)
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@pytest.mark.parametrize("value", ["N\n", "0\n", "\n"])
def test_no_such_mode_is_no_iommu(bare: SimulatedHost, value: str) -> None:
    allow_noiommu(bare, value)
    conn = open_connection("qemu:///system", host=bare)
    with conn, pytest.raises(NotAssignableError) as caught:
        conn.plan(Domain("vm1", [NO_ISOLATION]))
    assert caught.value.rule == "no-iommu"


def test_an_option_of_the_module_that_is_not_loaded_yet(bare: SimulatedHost) -> None:
    os.unlink(bare.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode"))
    options = Path(bare.path("etc/modprobe.d/vfio.conf"))
    options.write_text("options vfio enable_unsafe_noiommu_mode=1\n")
    conn = open_connection("qemu:///system", host=bare)
    with conn, pytest.raises(VetoError) as caught:
        conn.plan(Domain("vm1", [NIC]))
    assert rules_of(caught.value) == [("no-isolation", NIC)]


def test_show_names_the_right_node(bare: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=bare) as conn:
        (nic,) = conn.prepare_hostdevs(Domain("vm1", [NO_ISOLATION]))
    (shown,) = json.loads(run("show", NIC, "--json", host=bare).stdout)["devices"]
    assert shown["node"] == nic.node


# What sysfs says.


def test_regions_that_the_firmware_has_mapped(host: SimulatedHost, conn: Connection) -> None:
    region = "0x00000000dd800000 0x00000000ddffffff direct"
    msi = "0x00000000fee00000 0x00000000feefffff msi"
    write_group(host, 1, "reserved_regions", f"{region}\n{msi}\n")
    before = host.snapshot()
    for call in (conn.plan, conn.prepare_hostdevs):
        with pytest.raises(VetoError) as caught:
            call(Domain("vm1", [NIC]))
        assert rules_of(caught.value) == [("reserved-regions", NIC)]
        assert region in str(caught.value)
    assert host.snapshot() == before
    with pytest.raises(NotAssignableError) as refused:  # VFIO has the last word
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, allow={"reserved-regions"})]))
    assert refused.value.rule == "vfio-refuses"
    assert host.snapshot() == before
    conn.detach_device(NIC)  # no guest gets it


def test_relaxable_regions_do_not_matter(host: SimulatedHost, conn: Connection) -> None:
    region = "0x00000000dd800000 0x00000000ddffffff direct-relaxable\n"
    write_group(host, 1, "reserved_regions", region)
    assert conn.prepare_hostdevs(Domain("vm1", [NIC]))


def add_platform_device(host: SimulatedHost, group: int, name: str, driver: str | None) -> None:
    device = Path(host.path(f"sys/devices/platform/{name}"))
    device.mkdir(parents=True)
    (device / "subsystem").symlink_to("../../../bus/platform")
    if driver is not None:
        (device / "driver").symlink_to(f"../../../bus/platform/drivers/{driver}")
    members = Path(host.path(f"sys/kernel/iommu_groups/{group}/devices"))
    (members / name).symlink_to(f"../../../../devices/platform/{name}")


@pytest.mark.parametrize("flags", [PrepareFlags.NONE, PrepareFlags.WHOLE_GROUP])
def test_a_member_outside_the_pci_bus_is_a_culprit(
    host: SimulatedHost, conn: Connection, flags: PrepareFlags
) -> None:
    add_platform_device(host, 3, "fd500000.dma", "dw-axi-dmac")
    before = host.snapshot()
    with pytest.raises(GroupNotViableError) as caught:
        conn.prepare_hostdevs(Domain("vm1", [GPU]), flags)
    assert "fd500000.dma" in caught.value.culprits
    assert "fd500000.dma (on the platform bus) on dw-axi-dmac" in str(caught.value)
    assert host.snapshot() == before


@pytest.mark.parametrize("driver", [None, "vfio-platform"])
def test_one_that_does_not_block(host: SimulatedHost, conn: Connection, driver: str | None) -> None:
    add_platform_device(host, 1, "fd500000.dma", driver)
    assert conn.prepare_hostdevs(Domain("vm1", [NIC]))


# VFIO's own word.


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOMEM])
def test_what_vfio_refuses_is_not_lent(host: SimulatedHost, conn: Connection, number: int) -> None:
    before = host.snapshot()
    host.on_write("vfio", errno=number)
    with pytest.raises(NotAssignableError) as caught:
        conn.prepare_hostdevs(Domain("vm1", [OTHER, NIC]))
    assert caught.value.rule == "vfio-refuses"
    assert caught.value.errno == number
    assert errno.errorcode[number] in caught.value.evidence[0]
    assert host.snapshot() == before
    assert host.ledger.records() == []
    assert conn.prepare_hostdevs(Domain("vm1", [OTHER, NIC]))


def test_the_kernels_line_is_the_reason(host: SimulatedHost, conn: Connection) -> None:
    line = "vfio_iommu_type1_attach_group: No interrupt remapping support."
    Path(host.path("dev/kmsg")).write_text(f"4,1,999999999999999,-;{line}\n")
    host.on_write("vfio", errno=errno.EPERM)
    with pytest.raises(NotAssignableError, match="No interrupt remapping support") as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert f"kernel: {line}" in caught.value.evidence


def test_the_command_says_it(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("vfio", errno=errno.EPERM, value="dev/vfio/1")
    done = run("prepare", "vm1", NIC, *QEMU, host=host)
    assert done.returncode == 1
    assert "[vfio-refuses]" in done.stderr
    assert "EPERM" in done.stderr
    assert host.snapshot() == before


def test_a_trial_that_hangs_is_one_more_write_that_does(tmp_path: Path) -> None:
    host = make_sample(tmp_path / "host")
    before = host.snapshot()
    quick = SimulatedHost.open(host.root, deadlines=Deadlines(attribute=1.0))
    quick.on_write("vfio", hang=True)
    with open_connection("qemu:///system", host=quick) as conn:
        with pytest.raises(KernelTimeoutError, match="try VFIO with IOMMU group 1"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        (record,) = host.ledger.records()
        assert record.stuck is not None
        quick.release()
        while host.ledger.records():
            pass
    assert host.snapshot() == before


def test_what_is_no_guests_is_not_tried(host: SimulatedHost, conn: Connection) -> None:
    host.on_write("vfio", errno=errno.EPERM)
    conn.detach_device(NIC)
    conn.reattach_device(NIC)
    with pytest.raises(NotAssignableError):  # it was not asked before
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


def test_a_second_device_of_a_group_that_the_guest_has(
    host: SimulatedHost, conn: Connection
) -> None:
    """The guest may be opening the group this very moment: it is not touched."""
    conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
    host.add_pci("0000:03:00.2", kernel_driver=None, iommu_group=3)
    host.on_write("vfio", errno=errno.EPERM)
    with host.hold(GPU):
        assert conn.prepare_hostdevs(Domain("vm1", ["0000:03:00.2"]))
    assert conn.prepare_hostdevs(Domain("vm1", [SOUND]))


def test_xen_tries_nothing(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    host.on_write("vfio", errno=errno.EPERM)
    with open_connection("xen:///system", host=host) as conn:
        assert conn.prepare_hostdevs(Domain("vm1", [NIC]))
