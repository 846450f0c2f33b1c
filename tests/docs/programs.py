"""The programs that write parts of the pages: docs/_ext, a folder that only Sphinx has on its path."""

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from tests.docs.pages import ROOT


def load(name: str) -> ModuleType:
    """Load docs/_ext/NAME.py."""
    spec = spec_from_file_location(name, ROOT / "docs" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
