"""The harness notices what is lost: with a part of hostdev taken away, it says so."""

from pathlib import Path

import pytest

from hostdev_core.testing.jobs import Job, disturb
from hostdev_core.testing.mutations import MUTATIONS

QEMU = "tests.contract.test_qemu:TestQemu"
FILE = str(Path(__file__).parents[1] / "contract" / "test_qemu.py")


@pytest.mark.parametrize("part", MUTATIONS)
def test_a_part_that_is_missing_is_noticed(part: str) -> None:
    jobs = (
        Job(QEMU, FILE, scenario, (disturbance,), without=part)
        for disturbance in ("process killed", "EIO", "no effect", "another driver")
        for scenario in ("prepare one", "reattach one")
    )
    assert any(disturb(job).losses for job in jobs)


def test_with_all_parts_there_is_no_loss() -> None:
    report = disturb(Job(QEMU, FILE, "prepare one", ("process killed", "EIO")))
    assert report.losses == []
    assert report.points["process killed"] > 10
    assert report.points["EIO"] > 2
