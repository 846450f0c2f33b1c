"""docs/doctor.md has every finding of the code, in its words."""

from tests.docs.programs import load


def test_the_tables_are_of_these_checks() -> None:
    found = load("doctor_page")
    text = found.PAGE.read_text(encoding="utf-8")
    assert text == found.page(text), "the checks have changed: python docs/_ext/doctor_page.py"
    assert text.count("| problem |") > 5


def test_every_finding_that_matters_says_what_to_do() -> None:
    from hostdev_core.doctor.examine import CODES

    assert [code.name for code in CODES if str(code.level) != "ok" and not code.remedy] == []
