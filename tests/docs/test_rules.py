"""docs/rules.md and the code have the same rules."""

import re
from pathlib import Path

from hostdev_core.model.rulebook import RULES
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "rules.md").read_text()
CORE, GUARD = PAGE.split("## Of hostdev-guard")
RULE = re.compile(r'\b(?:rule=|Refusal\(\s*)"([a-z-]+)"')


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each row of a table of rules, by the rule's name."""
    found = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", text, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in found}


def sources(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")))


def test_the_page_has_every_rule_of_the_core() -> None:
    table = rows(CORE)
    assert [*table] == [*RULES]
    for name, (refuses, why, evidence, allow) in table.items():
        said = re.sub(r" \((?:VMD|a USB controller and what is on it)\)|`", "", refuses)
        assert said == RULES[name].refuses
        assert allow == ("yes" if RULES[name].passable else "no"), name
        assert why
        assert evidence


def test_every_rule_that_the_core_names_is_in_the_book() -> None:
    named = {*RULE.findall(sources(ROOT / "hostdev_core"))}
    assert named - {*RULES} == {
        "veto",
        "rule",
    }  # a plugin's VetoError without a refusal; an example
    assert {*RULES} - named == set()


def test_every_refusal_has_a_rule() -> None:
    refusals = re.compile(r"(?:NotAssignable|GroupNotViable)Error\(\n(?:.*\n)*?\s*\)\n")
    text = sources(ROOT / "hostdev_core")
    without = [match for match in refusals.findall(text) if "rule=" not in match]
    assert [match for match in without if "culprits=" not in match and "open " not in match] == []


def test_the_page_has_every_rule_of_the_guard() -> None:
    book = (ROOT / "plugins/hostdev-guard/hostdev_guard/rules.py").read_text()
    assert {*rows(GUARD)} == {*re.findall(r'^[A-Z]+ = "([a-z-]+)"', book, re.MULTILINE)}
