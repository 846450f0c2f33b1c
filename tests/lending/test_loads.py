"""What loading a stub's module binds: returned as found, and seen before."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    KernelTimeoutError,
    LocalHostdevDriver,
    NotAssignableError,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Untouched
from hostdev_core.testing.harness.jobs import Job, run
from tests.helpers import modules
from tests.helpers.modules import (
    CONFIGURATION,
    IDLE,
    LATE,
    NIC,
    OTHER,
    RELEASE,
    connect,
    lend_and_return,
    refuse,
    write,
)
from tests.sample import Brings

QEMU = "tests.contract.test_qemu:TestQemu"
FILE = str(Path(__file__).parents[1] / "contract" / "test_qemu.py")


host, conn = modules.host, modules.conn


class TestWhatALoadBinds:
    """As on a real kernel: a driver that is registered tries every device without one."""

    @pytest.mark.parametrize("override", ["vfio-pci", "nobody", "none", None])
    def test_the_device_that_is_asked_for_returns_as_found(
        self, host: SimulatedHost, conn: Connection, override: str | None
    ) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override=override)
        lend_and_return(host, conn, IDLE)

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (CONFIGURATION, "options vfio-pci disable_vga=1 ids=8086:1533,8086:10d3\n"),
            (CONFIGURATION, "options vfio_pci ids=8086:ffffffff:ffffffff:ffffffff:020000:ff0000\n"),
            ("proc/cmdline", "vfio-pci.ids=8086:10D3\n"),
            ("proc/cmdline", 'vfio_pci.ids="0x8086:10d3"\n'),
        ],
    )
    def test_by_its_ids(self, host: SimulatedHost, conn: Connection, path: str, text: str) -> None:
        host.add_pci(IDLE, iommu_group=2)
        write(host, path, text)
        error = refuse(host, conn, NIC)
        assert error.rule == "module-ids"
        assert IDLE in str(error)
        assert path in error.evidence[0]
        lend_and_return(host, conn, NIC, IDLE)

    def test_by_its_driver_override(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override="vfio-pci")
        error = refuse(host, conn, NIC)
        assert error.rule == "module-ids"
        assert error.evidence == (f"{IDLE} (its driver_override is 'vfio-pci')",)
        lend_and_return(host, conn, NIC, IDLE)

    def test_what_it_does_not_match_is_in_nobody_s_way(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        write(host, CONFIGURATION, "options vfio-pci ids=8086:1533,nonsense,8086\n")
        host.add_pci(IDLE, iommu_group=2)
        host.add_pci(OTHER, id="8086:1533", iommu_group=3, driver_override="none")
        lend_and_return(host, conn, NIC)

    def test_a_driver_whose_name_is_known_after_the_load_only(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        host.add_driver("acme", module="nic_vfio", loaded=False, variant_for="8086:10d3")
        host.add_pci(IDLE, id="8086:1533", iommu_group=2, driver_override="acme")
        assert refuse(host, conn, NIC).rule == "module-ids"
        host.sysfs.write(f"bus/pci/devices/{IDLE}/driver_override", "\n")
        host.add_pci(OTHER, iommu_group=3, driver_override="acme")
        assert refuse(host, conn, OTHER).rule == "module-ids"
        host.sysfs.write(f"bus/pci/devices/{OTHER}/driver_override", "\n")
        host.add_driver("acme-vfio-pci", module="acme", loaded=False, variant_for="8086:1572")
        host.add_pci(LATE, id="8086:1572", iommu_group=4)
        lend_and_return(host, conn, LATE)

    def test_by_a_module_that_comes_along(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_driver("igb", module="igb", loaded=False, ids=["8086:1533"])
        host.add_pci(IDLE, id="8086:1533", iommu_group=2)
        file = Path(host.path(f"lib/modules/{RELEASE}/modules.dep"))
        lists = file.read_text()
        file.write_text(lists.replace("/vfio_pci.ko:", "/vfio_pci.ko: kernel/drivers/igb.ko"))
        for devices in ([NIC], [IDLE]):
            error = refuse(host, conn, *devices)
            assert error.evidence == (f"{IDLE} (igb comes along, and drives it)",)
        file.write_text(lists)
        write(host, CONFIGURATION, "softdep vfio-pci pre: igb\n")
        assert refuse(host, conn, NIC).rule == "module-ids"

    def test_a_device_that_does_not_answer(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_pci(IDLE, iommu_group=2)
        override = f"bus/pci/devices/{IDLE}/driver_override"
        host.on_write(override, hang=True)
        code = "import sys; from hostdev_core.simulated import SimulatedHost as H"
        code += f"; H.open(sys.argv[1]).sysfs.write({override!r}, 'x')"
        writer = subprocess.Popen([sys.executable, "-c", code, host.root])
        try:
            host.wait_hanging()
            with pytest.raises(KernelTimeoutError, match=IDLE):
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            assert host.ledger.records() == []
            assert not host.modules.is_loaded("vfio_pci")
        finally:
            host.release()
            writer.wait()

    def test_a_load_that_fails_leaves_it_as_found(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override="vfio-pci")
        host.on_write("modprobe", errno=errno.EPERM)
        with Untouched(host), pytest.raises(Exception, match="vfio_pci"):
            conn.prepare_hostdevs(Domain("vm1", [IDLE]))

    @pytest.mark.long
    def test_whoever_is_killed_or_fails_meanwhile(self) -> None:
        scenario = "prepare what the load binds"
        report = run(Job(QEMU, FILE, scenario, ("process killed", "EIO", "no effect")))
        assert report.losses == []
        assert report.points["process killed"] > 10


class Acme(LocalHostdevDriver):
    """Takes what a module of another name brings."""

    name = "acme"
    uri_schemes = ("acme",)
    stubs = ("acme_uio",)
    stub_modules = {"acme_uio": "acme_module"}


def test_a_stub_of_another_name_than_its_module(host: SimulatedHost) -> None:
    host.add_driver("acme_uio", module="acme_module", loaded=False, variant_for="8086:10d3")
    host.add_pci(IDLE, iommu_group=2, driver_override="acme_uio")
    conn = connect(host, Brings(Acme()), uri="acme:///system")
    before = host.snapshot()
    with pytest.raises(NotAssignableError, match=IDLE):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before
    conn.prepare_hostdevs(Domain("vm1", [NIC, IDLE]))
    assert {host.snapshot()[name]["kernel_driver"] for name in (NIC, IDLE)} == {"acme_uio"}
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
