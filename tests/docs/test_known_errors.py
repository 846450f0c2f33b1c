"""docs/known-errors.md is what the table of known messages says."""

from importlib.util import module_from_spec, spec_from_file_location

from tests.docs.pages import ROOT


def test_the_page_is_of_this_table() -> None:
    spec = spec_from_file_location("known_errors", ROOT / "docs" / "_ext" / "known_errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    told = "the table has changed: python docs/_ext/known_errors.py"
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), told
