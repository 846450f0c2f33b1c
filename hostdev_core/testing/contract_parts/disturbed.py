"""The contract: a kill, a signal or a failure at any moment of a call loses nothing."""

import sys

import pytest

from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness.jobs import ERRNOS, Job, run
from hostdev_core.testing.harness.scenarios import SCENARIOS

KILLS = ("process killed", "worker killed", "waiting process killed")
WRITE_ERRORS = ("some errno", "EIO and EINVAL from then on", "no effect", "another driver")
LEDGER_ERRORS = ("ledger full", "ledger read-only", "ledger damaged", "ledger locked")
SIGNALS = ("SIGTERM", "KeyboardInterrupt")
# Of two disturbances in one run there are as many points as pairs of moments.
IN_FULL = (
    *ERRNOS, "no effect from then on", "recoverers killed", "EIO twice", "EIO in recovery",
    "no effect in recovery", "another driver in recovery", "card swapped", "ledger full once",
    "ledger newer", "two signals",
)  # fmt: skip


class Disturbed(ContractBase):
    """Each call of scenarios.py, disturbed at every moment of it: all or nothing, and nothing is left."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each of the contract's scenarios."""
        if "scenario" in metafunc.fixturenames:
            short = metafunc.function.__name__.endswith("in_full")
            chosen = [name for name in self.scenarios() if not short or SCENARIOS[name].short]
            metafunc.parametrize("scenario", chosen)

    def scenarios(self) -> list[str]:
        """List the calls of scenarios.py that the driver can make."""
        return [
            name
            for name, scenario in SCENARIOS.items()
            if (self.driver.takes_usb or not scenario.usb)
            and (self.driver.needs_iommu or not scenario.needs_groups)
        ]

    def disturb(self, scenario: str, *disturbances: str) -> None:
        """Run a job for this contract; fail for each loss, and for a disturbance that met no moment."""
        kind = type(self)
        file = sys.modules[kind.__module__].__file__ or ""
        contract = f"{kind.__module__}:{kind.__qualname__}"
        report = run(Job(contract, file, scenario, disturbances))
        assert report.losses == []
        idle = [name for name, points in report.points.items() if not points]
        assert not idle or SCENARIOS[scenario].writes_nothing, idle

    def test_killed_at_every_moment(self, scenario: str) -> None:
        self.disturb(scenario, *KILLS)

    def test_every_change_fails(self, scenario: str) -> None:
        self.disturb(scenario, *WRITE_ERRORS)

    def test_the_ledger_fails_at_every_transaction(self, scenario: str) -> None:
        self.disturb(scenario, *LEDGER_ERRORS)

    def test_stopped_at_every_moment(self, scenario: str) -> None:
        self.disturb(scenario, *SIGNALS)

    def test_disturbed_in_full(self, scenario: str) -> None:
        self.disturb(scenario, *IN_FULL)
