"""The rooms of hostdev_core: the drawing is that of the imports, the table in CONTRIBUTING.md is whole."""

import re

from tests.docs.pages import ROOT, inline
from tests.docs.programs import load
from tests.docs.source import CORE


def test_the_drawing_of_the_rooms_is_of_these_imports() -> None:
    rooms = load("draw_rooms")
    told = "the imports have changed: python docs/_ext/draw_rooms.py"
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), told


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    rooms = load("draw_rooms")
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set[str](), "d": set[str]()}
    assert rooms.reduce(arrows) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert rooms.rows_of("abcd", arrows) == [["a"], ["b"], ["c", "d"]]


def test_the_table_has_every_room_in_the_order_of_imports() -> None:
    contributing = ROOT / "CONTRIBUTING.md"
    packages = re.findall(r"^\| `hostdev_core/(\w+)/` \|", contributing.read_text(), re.MULTILINE)
    assert packages == [
        room for room in load("draw_rooms").settings()["layers"] if (CORE / room).is_dir()
    ]
    told = {code.rstrip("/") for code in inline(contributing) if code.startswith("tests/")}
    there = {
        f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if path.name[0] not in "._"
    }
    assert there - {"tests/conftest.py"} <= told
    front_door = {path.name for path in CORE.glob("[!_]*.py")}
    assert front_door <= {*inline(contributing)}
