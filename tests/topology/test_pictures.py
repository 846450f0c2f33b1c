"""The pictures: one file each that needs nothing, whose texts are texts, in colours that can be read."""

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import Domain, PCIHostdev
from hostdev_core.facts.use import CODES
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated import SimulatedHost
from hostdev_core.topology import page, svg
from hostdev_core.topology.labels import manner_of
from hostdev_core.topology.palette import MANNERS, PAGE
from hostdev_core.topology.tree import Node, Topology
from tests.sample import connect
from tests.topology.machines import DOMAIN, NASTY, hostile, large, read

pytestmark = pytest.mark.quick_cases

SPACE = "{http://www.w3.org/2000/svg}"


def texts_of(picture: str) -> list[str]:
    """All texts of an SVG, which must be one."""
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{SPACE}svg"
    kinds = {each.tag.removeprefix(SPACE) for each in root.iter()}
    assert kinds <= {
        *("svg", "title", "desc", "style", "defs", "symbol", "use", "text"),
        *("rect", "path", "circle"),
    }
    return ["".join(each.itertext()) for each in root.iter(f"{SPACE}text")]


@pytest.fixture
def nasty(tmp_path: Path) -> SimulatedHost:
    """The hostile machine, with a card lent to a domain of a hostile name."""
    host = hostile(tmp_path / "host")
    with connect(host) as conn:
        card = PCIHostdev(address=PCIAddress.parse("0000:01:00.0"), allow=frozenset({"in-use"}))
        conn.prepare_hostdevs(Domain(DOMAIN, [card]))
    return host


def test_hostile_texts_are_texts_in_a_picture(nasty: SimulatedHost) -> None:
    picture = svg.draw(read(nasty))
    shown = texts_of(picture)
    assert any(text.startswith(NASTY) for text in shown)  # its title has it whole
    assert any(DOMAIN[:20] in text for text in shown)
    assert "\x1b" not in picture
    assert "\u202e" not in picture
    assert "SECRET99" not in picture


def test_hostile_texts_are_texts_in_a_page(nasty: SimulatedHost) -> None:
    document = page.draw(read(nasty))
    assert document.count("<script>") == 1
    assert "<img" not in document
    assert "&lt;script&gt;window.got=1" in document
    assert "\u202e" not in document
    assert "SECRET99" not in document


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_leaves_a_picture_well_formed(text: str) -> None:
    device = {
        "kind": "usb",
        "address": "1-1",
        "ids": text,
        "vendor_name": text,
        "device_name": text,
        "label": text,
        "unread": None,
        "net": [text],
        "use": {"code": "lent", "text": f"lent to {text}", "evidence": [text], "whole": True},
        "used_by": {"domain": text, "driver": text, "uri": text, "uuid": text},
        "stuck": None,
    }
    topology = Topology((Node("usb", "1-1", device), Node("elsewhere", text)))
    shown = texts_of(svg.draw(topology))
    assert "1-1" in shown
    document = page.draw(topology)
    tree = re.search(r'<ul id="tree".*?\n<aside', document, re.DOTALL)
    assert tree is not None
    ElementTree.fromstring(f"<r>{tree[0].removesuffix('<aside')}</r>")


def test_a_picture_tells_a_screen_reader_what_it_shows(nasty: SimulatedHost) -> None:
    root = ElementTree.fromstring(svg.draw(read(nasty)))
    named = (root.get("aria-labelledby") or "").split()
    told = {each.get("id"): each.text or "" for each in root if each.get("id")}
    assert root.get("role") == "img"
    assert "what hangs on what" in told[named[0]]
    assert told[named[1]].startswith("6 devices: ")
    assert "0000:01:00.0" in told[named[1]]


def test_equal_machines_have_equal_pictures(tmp_path: Path) -> None:
    one, two = large(tmp_path / "one"), large(tmp_path / "two")
    for draw in (svg.draw, page.draw):
        assert draw(read(one)) == draw(read(two))


@pytest.mark.parametrize("draw", [svg.draw, page.draw])
def test_a_machine_without_devices_is_drawn(
    tmp_path: Path, draw: Callable[[Topology], str]
) -> None:
    picture = draw(read(SimulatedHost.create(tmp_path / "host")))
    assert "0 devices" in picture


def test_the_policy_of_a_page_names_its_own_script_and_style(tmp_path: Path) -> None:
    document = page.draw(read(hostile(tmp_path / "host")))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', document)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    for kind, tag in (("script", "script"), ("style", "style")):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", document, re.DOTALL)
        assert inline is not None
        digest = b64encode(sha256(inline[1].encode()).digest()).decode()
        assert rules.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    assert not re.search(r'\s(src|href)="(?!#)|url\(|@import|https?:', document)
    assert not re.search(r'\s(style|on\w+)="', document)


def test_every_use_has_a_manner() -> None:
    assert {manner_of(code) for code in CODES} == {*MANNERS}


def brightness(colour: str) -> float:
    """The relative luminance of WCAG 2.1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    dark, light = sorted((brightness(one), brightness(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", PAGE)
def test_what_is_shown_can_be_read(scheme: str) -> None:
    colours = PAGE[scheme]
    looks = {name: look.light if scheme == "light" else look.dark for name, look in MANNERS.items()}
    # A row that is pointed at, or chosen, is behind its texts.
    for behind in (colours["back"], looks["host"][1]):
        for name in ("text", "less", "focus"):
            assert contrast(colours[name], behind) >= 4.5, (name, behind)
    for name, (front, back) in looks.items():
        assert contrast(front, back) >= 4.5, name
        assert contrast(front, colours["back"]) >= 4.5, name


def test_manners_differ_by_more_than_their_colour() -> None:
    assert len({look.mark for look in MANNERS.values()}) == len(MANNERS)
