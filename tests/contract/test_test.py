from hostdev_core.testing import DriverContract
from hostdev_test import SimulatedDriver


class TestSimulated(DriverContract):
    driver = SimulatedDriver
    uri = "test://{root}"

    def scenarios(self) -> list[str]:
        """Some: everything but the URI is as in the driver for QEMU, which meets them all."""
        return ["prepare one", "prepare mixed", "reattach mixed"]
