from hostdev_core.testing import DriverContract
from hostdev_libxl import LibxlDriver


class TestLibxl(DriverContract):
    driver = LibxlDriver
