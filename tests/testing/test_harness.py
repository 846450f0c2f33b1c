"""The harness notices what is lost: with a part of hostdev taken away, it says so."""

from pathlib import Path

import pytest

from hostdev_core.testing.contract_parts.base import DISK, NIC
from hostdev_core.testing.contract_parts.disturbed import (
    KILLS,
    LEDGER_ERRORS,
    SIGNALS,
    WRITE_ERRORS,
)
from hostdev_core.testing.harness.jobs import Job, run
from hostdev_core.testing.harness.trial import Trial
from tests.contract import test_libxl, test_qemu
from tests.testing.mutations import MUTATIONS

QEMU = "tests.contract.test_qemu:TestQemu"
XEN = "tests.contract.test_libxl:TestLibxl"
FILE = str(test_qemu.__file__)
FILES = {QEMU: FILE, XEN: str(test_libxl.__file__)}
LONG = pytest.mark.long
QUICK, *REST = sorted(MUTATIONS, key=lambda part: part != "the end of dead lock files")
PAIRS = (
    "recoverers killed", "EIO twice", "EIO in recovery", "no effect in recovery",
    "another driver in recovery", "card swapped", "ledger full once", "ledger newer", "two signals",
)  # fmt: skip


@pytest.mark.parametrize(
    ("contract", "call"), [(QEMU, "prepare one"), (QEMU, "reattach one"), (XEN, "reattach one")]
)
def test_each_kind_of_disturbance_at_some_moments(contract: str, call: str) -> None:
    """In short what the contracts do at length."""
    for every, kinds in (10, (*KILLS, *WRITE_ERRORS, *SIGNALS)), (50, (*LEDGER_ERRORS, *PAIRS)):
        report = run(Job(contract, FILES[contract], call, kinds, every=every))
        assert report.losses == []
        assert [name for name, points in report.points.items() if not points] == []


@pytest.mark.parametrize("part", [QUICK, *(pytest.param(p, marks=LONG) for p in REST)])
def test_a_part_that_is_missing_is_noticed(part: str) -> None:
    jobs = (
        Job(QEMU, FILE, scenario, (disturbance,), setup=("tests.testing.mutations:take_away", part))
        for disturbance in ("process killed", "EIO", "no effect", "another driver", "card swapped")
        for scenario in ("prepare one", "reattach one")
    )
    assert any(run(job).losses for job in jobs)


@LONG
def test_with_all_parts_there_is_no_loss() -> None:
    report = run(Job(QEMU, FILE, "prepare one", ("process killed", "EIO")))
    assert report.losses == []
    assert report.points["process killed"] > 10
    assert report.points["EIO"] > 2


def test_each_device_that_is_stuck_has_a_reason_of_its_own(tmp_path: Path) -> None:
    trial = Trial(test_qemu.TestQemu(), "reattach four", tmp_path)
    host = trial.fresh()
    for name in NIC, DISK:
        host.on_write("*/vfio-pci/unbind", value=name, errno=5)
    assert trial.outcome(host, trial.scenario.action) is not None
    trial.check_told(host, "two are stuck")
    assert trial.losses == []
    (record,) = (record for record in host.ledger.records() if record.address == DISK)
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(stuck=None))
    trial.check_told(host, "one says why")
    (loss,) = trial.losses
    assert f"one says why: nobody says why {DISK} is" in loss
