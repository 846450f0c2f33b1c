"""The catalogue of mutants fits the code: `make mutants` tries each."""

import ast

import pytest

from tests.mutants.mutant import MUTANTS, ROOT, Mutant

ROOMS = {
    "claim.py", "prepare.py", "homeward.py", "reattach.py", "recovery.py", "guard.py", "rules.py",
    "store.py", "operation.py", "executor.py", "worker.py", "sysfs.py", "writer.py", "decide.py",
    "drift.py", "marks.py", "holding.py",
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


def test_every_room_that_changes_something_has_mutants() -> None:
    assert {mutant.file for mutant in MUTANTS} >= ROOMS
    assert len([mutant for mutant in MUTANTS if not mutant.equivalent]) >= 90
