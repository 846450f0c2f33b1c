"""The picture of a machine that README.md shows is what the command draws."""

from tests.docs.pages import ROOT
from tests.docs.programs import load


def test_the_picture_is_what_the_command_draws() -> None:
    drawing = load("draw_topology")
    told = "what is drawn has changed: python docs/_ext/draw_topology.py"
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(), told
    assert "docs/pictures/topology.svg" in (ROOT / "README.md").read_text(encoding="utf-8")
