"""Tests against hostdev: a contract for drivers, and hosts without hardware.

    from hostdev_core.testing import DriverContract

    class TestMyDriver(DriverContract):
        driver = MyDriver

`DriverContract` needs pytest (`pip install hostdev[testing]`); nothing else here does. Where both
are installed, pytest knows the fixtures of pytest_plugin.py by itself. The names are handed on at
their first use: importing this package alone loads nothing else. What hostdev's own tests alone need stands
in tests/.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.simulated import SimulatedHost as SimulatedHost
    from hostdev_core.simulated import make_sample as make_sample
    from hostdev_core.testing.contract import DriverContract as DriverContract

__all__ = ["DriverContract", "SimulatedHost", "make_sample"]
_PARTS = (
    "base", "disturbed", "form", "hooks", "opening", "refusals", "rendering", "round_trips", "usb",
    "write_errors",
)  # fmt: skip


if not TYPE_CHECKING:

    def _contract():
        import pytest  # the only part that needs it

        parts = (f"{__name__}.contract_parts.{part}" for part in _PARTS)
        pytest.register_assert_rewrite(f"{__name__}.contract", *parts)
        from hostdev_core.testing.contract import DriverContract

        return DriverContract

    def __getattr__(name):
        """Import a public name from its home."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "DriverContract":
            value = _contract()
        else:
            from hostdev_core import simulated

            value = getattr(simulated, name)
        globals()[name] = value  # found without this function from now on
        return value

    def __dir__():
        return __all__
