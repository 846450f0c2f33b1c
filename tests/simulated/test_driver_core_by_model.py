"""One device against a tiny model of the driver core: any order of writes gives what it says."""

import errno
import os
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hostdev_core.errors import KernelError
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

GROUP = 3
PATH = f"bus/pci/devices/{NIC}"
DRIVERS = ("e1000e", "vfio-pci", "pci-stub")
drivers = st.sampled_from(DRIVERS)


class DeviceMachine(RuleBasedStateMachine):
    """`bound` and `override` are the model; the host must agree after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.host = SimulatedHost.create(self.root)
        self.host.add_pci(NIC, kernel_driver="e1000e", iommu_group=GROUP, net="eth0")
        for module in ("vfio-pci", "pci-stub"):
            self.host.modules.load(module)
        self.bound: str | None = "e1000e"
        self.override: str | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def write(self, path: str, value: str) -> int:
        try:
            self.host.sysfs.write(path, value)
        except KernelError as error:
            return error.errno or 0
        return 0

    def matches(self, driver: str) -> bool:
        return driver == (self.override or "e1000e")

    @rule(text=st.one_of(st.none(), drivers, st.just("nobody")), newline=st.booleans())
    def set_override(self, text: str | None, newline: bool) -> None:
        value = f"{text or ''}\n" if newline or text is None else text
        assert self.write(f"{PATH}/driver_override", value) == 0
        self.override = text

    @rule(driver=drivers)
    def bind(self, driver: str) -> None:
        expected = 0 if self.matches(driver) else errno.ENODEV
        if not expected and self.bound:
            expected = errno.EBUSY
        assert self.write(f"bus/pci/drivers/{driver}/bind", NIC) == expected
        if not expected:
            self.bound = driver

    @rule(driver=drivers)
    def bind_while_it_fails(self, driver: str) -> None:
        self.host.on_write(f"bus/pci/drivers/{driver}/bind", errno=errno.EIO)
        assert self.write(f"bus/pci/drivers/{driver}/bind", NIC) == errno.EIO

    @rule(driver=drivers)
    def unbind(self, driver: str) -> None:
        expected = 0 if self.bound == driver else errno.ENODEV
        assert self.write(f"bus/pci/drivers/{driver}/unbind", NIC) == expected
        if not expected:
            self.bound = None

    @rule()
    def unbind_by_link(self) -> None:
        expected = 0 if self.bound else errno.ENOENT
        assert self.write(f"{PATH}/driver/unbind", NIC) == expected
        self.bound = None

    @rule()
    def probe(self) -> None:
        assert self.write("bus/pci/drivers_probe", NIC) == 0
        if self.bound is None:
            self.bound = next((driver for driver in DRIVERS if self.matches(driver)), None)

    @rule()
    def replug(self) -> None:
        before = self.host.sysfs.inode(PATH)
        self.host.unplug(NIC)
        self.host.add_pci(NIC, iommu_group=GROUP, net="eth0")
        assert self.host.sysfs.inode(PATH) != before
        self.bound = self.override = None

    @invariant()
    def the_host_agrees(self) -> None:
        sysfs = self.host.sysfs
        assert sysfs.link(f"{PATH}/driver") == self.bound
        assert sysfs.read(f"{PATH}/driver_override") == (self.override or "(null)")
        for driver in DRIVERS:
            assert sysfs.exists(f"bus/pci/drivers/{driver}/{NIC}") == (driver == self.bound)
        first = (sysfs.read(f"{PATH}/uevent") or "").partition("\n")[0]
        assert first == (f"DRIVER={self.bound}" if self.bound else "PCI_CLASS=20000")

    @invariant()
    def what_depends_on_it_agrees(self) -> None:
        on_vfio = self.bound == "vfio-pci"
        assert os.path.exists(self.host.path(f"dev/vfio/{GROUP}")) == on_vfio
        assert bool(self.host.sysfs.names(f"{PATH}/vfio-dev")) == on_vfio
        assert self.host.sysfs.exists("class/net/eth0") == (self.bound == "e1000e")


TestDeviceMachine = DeviceMachine.TestCase
TestDeviceMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
