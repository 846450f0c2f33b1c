"""The contract: whoever is killed or stopped at any moment, whatever fails, nothing is lost."""

import sys

import pytest

from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness.jobs import ERRNOS, Job, disturb
from hostdev_core.testing.harness.scenarios import SCENARIOS

KILLS = ("process killed", "worker killed", "waiting process killed")
FAILURES = ("some errno", "EIO and EINVAL from then on", "no effect", "another driver")
LEDGER = ("ledger full", "ledger read-only", "ledger damaged", "ledger locked")
SIGNALS = ("SIGTERM", "KeyboardInterrupt")
# Of two disturbances in one run there are as many points as pairs of moments.
IN_FULL = (
    *ERRNOS, "no effect from then on", "recoverers killed", "EIO twice", "EIO in recovery",
    "no effect in recovery", "another driver in recovery", "exchanged", "ledger full once",
    "ledger newer", "two signals",
)  # fmt: skip


class Disturbed(ContractBase):
    """Every call of scenarios.py at every moment of it: it is all or nothing, and nothing is left."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each of the contract's scenarios."""
        if "scenario" in metafunc.fixturenames:
            short = metafunc.function.__name__.endswith("in_full")
            chosen = [name for name in self.scenarios() if not short or SCENARIOS[name].short]
            metafunc.parametrize("scenario", chosen)

    def scenarios(self) -> list[str]:
        """The calls of scenarios.py that the harness disturbs: all that the driver can make."""
        return [
            name
            for name, scenario in SCENARIOS.items()
            if (self.driver.takes_usb or not scenario.usb)
            and (self.driver.needs_iommu or not scenario.needs_groups)
        ]

    def disturbed(self, scenario: str, *disturbances: str) -> None:
        """Run a job for this contract; fail for every loss, and where nothing was disturbed."""
        kind = type(self)
        file = sys.modules[kind.__module__].__file__ or ""
        contract = f"{kind.__module__}:{kind.__qualname__}"
        report = disturb(Job(contract, file, scenario, disturbances))
        assert report.losses == []
        idle = [name for name, points in report.points.items() if not points]
        assert not idle or SCENARIOS[scenario].writes_nothing, idle

    def test_killed_at_every_moment(self, scenario: str) -> None:
        self.disturbed(scenario, *KILLS)

    def test_every_change_fails(self, scenario: str) -> None:
        self.disturbed(scenario, *FAILURES)

    def test_the_ledger_fails_at_every_transaction(self, scenario: str) -> None:
        self.disturbed(scenario, *LEDGER)

    def test_stopped_at_every_moment(self, scenario: str) -> None:
        self.disturbed(scenario, *SIGNALS)

    def test_disturbed_in_full(self, scenario: str) -> None:
        self.disturbed(scenario, *IN_FULL)
