"""For those who test against hostdev: a contract for drivers, and hosts without hardware.

    from hostdev_core.testing import DriverContract

    class TestMyDriver(DriverContract):
        driver = MyDriver
        uri = "my:///system"

`DriverContract` needs pytest (`pip install hostdev[testing]`); nothing else here does.
"""

from hostdev_core.simulated import SimulatedHost as SimulatedHost
from hostdev_core.simulated import make_sample as make_sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.testing.contract import DriverContract as DriverContract

__all__ = ["DriverContract", "SimulatedHost", "make_sample"]
_PARTS = (
    "base", "contract", "disturbed", "faults", "hooks", "opening", "refusals", "round_trips", "usb",
)  # fmt: skip


if not TYPE_CHECKING:

    def __getattr__(name):
        """Import the contract at its first use: it is the only part that needs pytest."""
        if name != "DriverContract":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import pytest

        pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))
        from hostdev_core.testing.contract import DriverContract

        globals()[name] = DriverContract
        return DriverContract
