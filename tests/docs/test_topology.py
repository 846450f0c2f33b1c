"""The picture of a machine that README.md shows is what the command draws."""

from importlib.util import module_from_spec, spec_from_file_location

from tests.docs.pages import ROOT


def test_the_picture_is_what_the_command_draws() -> None:
    spec = spec_from_file_location("draw_topology", ROOT / "docs" / "_ext" / "draw_topology.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = module_from_spec(spec)
    spec.loader.exec_module(drawing)
    told = "what is drawn has changed: python docs/_ext/draw_topology.py"
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(), told
    assert "docs/pictures/topology.svg" in (ROOT / "README.md").read_text(encoding="utf-8")
