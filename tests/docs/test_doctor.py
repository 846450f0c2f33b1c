"""docs/doctor.md has every finding of the code, in its words."""

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from tests.docs.pages import ROOT


def writer() -> ModuleType:
    """Load docs/_ext/doctor_page.py, a folder that only Sphinx has on its path."""
    spec = spec_from_file_location("doctor_page", ROOT / "docs" / "_ext" / "doctor_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_of_these_checks() -> None:
    found = writer()
    text = found.PAGE.read_text(encoding="utf-8")
    assert text == found.page(text), "the checks have changed: python docs/_ext/doctor_page.py"
    assert text.count("| problem |") > 5


def test_every_finding_that_matters_says_what_to_do() -> None:
    from hostdev_core.doctor.examine import CODES

    assert [code.name for code in CODES if str(code.level) != "ok" and not code.remedy] == []
