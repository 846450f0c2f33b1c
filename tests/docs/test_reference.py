"""The generated pages leave nothing out; `make docs` makes them."""

import re
from importlib.util import module_from_spec, spec_from_file_location

import hostdev_core
import hostdev_core.testing
from hostdev_core.cli import MODULES
from tests.docs.pages import ROOT


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    shown = {*re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)$", page, re.MULTILINE)}
    public = {*hostdev_core.__all__, *hostdev_core.testing.__all__} - {"__version__"}
    assert shown == public


def test_every_command_is_in_the_reference() -> None:
    spec = spec_from_file_location("command_line", ROOT / "docs" / "_ext" / "command_line.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.reference()
    titles = re.findall(r"^## hostdev (\w+)", reference, re.MULTILINE)
    assert {*titles} == {*MODULES}
    assert "`--host DIR\\|FILE`" in reference
    assert "hostdev reattach [OPTION...] DOMAIN [DEVICE...] [--uuid UUID]" in reference


def test_the_drawings_need_nothing_from_elsewhere() -> None:
    drawings = [*ROOT.glob("docs/pictures/*.svg")]
    assert drawings
    for drawing in drawings:
        text = drawing.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text
        assert "@import" not in text
