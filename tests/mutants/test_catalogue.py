"""The catalogue of mutants fits the code: `make mutants` tries each."""

import ast
from pathlib import Path

import pytest

from tests.mutants.__main__ import QUICK, failure
from tests.mutants.mutant import MUTANTS, ROOT, Mutant

ROOMS = {
    "lending/claim.py", "lending/prepare.py", "lending/restore.py", "lending/reattach.py",
    "lending/recovery.py", "lending/writer.py", "lending/stuck.py", "inventory/vfio.py",
    "bus/bus.py", "inventory/holders.py", "planning/pci_rules.py", "planning/planner.py",
    "ledger/store.py", "runtime/operation.py", "runtime/lanes.py", "worker/run.py", "kernel/sysfs.py",
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file} {mutant.name}")
def test_a_mutant_is_another_program(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    assert ast.dump(ast.parse(mutant.applied(text))) != ast.dump(ast.parse(text))
    assert mutant.near or mutant.equivalent
    for near in mutant.near:
        file, _, test = near.partition("::")
        assert (ROOT / file).exists()
        assert not test or f"def {test}(" in (ROOT / file).read_text()


def test_a_mutant_near_which_all_is_long_says_so(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    test = tmp_path / "test_it.py"
    test.write_text("import pytest\n@pytest.mark.long\ndef test_it():\n    pass\n")
    with pytest.raises(
        SystemExit, match=r"none of .*test_it.*: `near` wants a test that is not long"
    ):
        failure(tmp_path, ["test_it.py", *QUICK])
    test.write_text("def test_it():\n    assert False\n")
    assert failure(tmp_path, ["test_it.py", *QUICK]) == "test_it.py::test_it"


def test_every_room_that_changes_something_has_mutants() -> None:
    assert {mutant.file for mutant in MUTANTS} >= ROOMS
    assert len([mutant for mutant in MUTANTS if not mutant.equivalent]) >= 90
