"""docs/known-errors.md is what the table of known messages says."""

from tests.docs.programs import load


def test_the_page_is_of_this_table() -> None:
    module = load("known_errors")
    told = "the table has changed: python docs/_ext/known_errors.py"
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), told
