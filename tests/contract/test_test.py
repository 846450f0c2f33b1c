from hostdev_core.testing import DriverContract
from hostdev_test import SimulatedDriver


class TestSimulated(DriverContract):
    driver = SimulatedDriver
    uri = "test://{root}"
