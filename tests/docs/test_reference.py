"""The generated pages leave nothing out; `make docs` makes them."""

import re

import hostdev_core
import hostdev_core.testing
from hostdev_core.cli import MODULES
from tests.docs.pages import ROOT, inline
from tests.docs.programs import load


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    shown = {*re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)$", page, re.MULTILINE)}
    public = {*hostdev_core.__all__, *hostdev_core.testing.__all__} - {"__version__"}
    assert shown == public


def reference() -> str:
    """What docs/_ext/command_line.py reads from the parser."""
    return str(load("command_line").reference())


def test_every_command_is_in_the_reference() -> None:
    text = reference()
    assert {*re.findall(r"^## hostdev (\w+)", text, re.MULTILINE)} == {*MODULES}
    assert "`--host DIR\\|FILE`" in text
    assert "hostdev reattach [OPTION...] DOMAIN [DEVICE...]\n" in text


def test_every_command_and_option_is_in_the_guide() -> None:
    guide = {
        word for code in inline(ROOT / "docs" / "cli.md") for word in re.split(r"[^\w-]+", code)
    }
    options = {*re.findall(r"--[a-z][a-z-]*", reference())}
    assert options - guide == {"--help", "--version"}
    assert {*MODULES} - guide == set()


def test_the_drawings_need_nothing_from_elsewhere() -> None:
    drawings = [*ROOT.glob("docs/pictures/*.svg")]
    assert drawings
    for drawing in drawings:
        text = drawing.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text
        assert "@import" not in text
