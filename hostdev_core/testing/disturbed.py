"""The contract: whoever is killed at any moment, whatever fails and fails again, nothing is lost."""

import errno
import sys
from typing import Any

import pytest

from hostdev_core.testing.base import ContractBase
from hostdev_core.testing.jobs import SIDES, Job, Report, disturb
from hostdev_core.testing.scenarios import SCENARIOS

ERRNOS = [
    (errno.EBUSY,),
    (errno.ENODEV,),
    (errno.EIO,),
    (errno.EINVAL,),
    (errno.EPERM,),
    (errno.EAGAIN,),
    (errno.EIO, errno.EBUSY),
]
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS)


class Disturbed(ContractBase):
    """Every call of scenarios.py at every moment of it: it is all or nothing, and nothing is left."""

    def disturbed(self, job: Job) -> Report:
        """Run a job for this contract and fail for every loss."""
        report = disturb(job)
        assert report.losses == []
        return report

    def job(self, scenario: str, **more: Any) -> Job:
        """A job for this contract."""
        kind = type(self)
        file = sys.modules[kind.__module__].__file__ or ""
        return Job(f"{kind.__module__}:{kind.__qualname__}", file, scenario)._replace(**more)

    @pytest.mark.parametrize("side", SIDES)
    @each_scenario
    def test_killed_at_every_moment(self, scenario: str, side: str) -> None:
        assert self.disturbed(self.job(scenario, side=side)).moments > 2

    @each_scenario
    def test_killed_again_while_recovering(self, scenario: str) -> None:
        assert self.disturbed(self.job(scenario, again=True)).moments > 2

    @each_scenario
    def test_every_write_fails_once_or_from_then_on(self, scenario: str) -> None:
        for errnos in ERRNOS:
            self.disturbed(self.job(scenario, side="fault", errnos=errnos))
