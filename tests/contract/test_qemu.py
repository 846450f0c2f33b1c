from hostdev_core.testing import DriverContract
from hostdev_qemu import QemuDriver


class TestQemu(DriverContract):
    driver = QemuDriver
