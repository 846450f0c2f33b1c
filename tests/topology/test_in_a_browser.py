"""The pictures in a real Chromium: they show what they should, nothing overlaps, nothing leaves the page.

Without Chromium these tests fail, and say how it comes here; `make test` leaves them to `make test-all`.
"""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostdev_core import Domain, PCIHostdev
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated import SimulatedHost
from hostdev_core.topology import page, svg
from hostdev_core.topology.tree import Topology
from tests.helpers.chromium import Page, browser_page
from tests.helpers.cli_command import QEMU, run
from tests.sample import connect
from tests.topology.machines import DOMAIN, NASTY, deep, hostile, large, read
from tests.topology.shown import (
    DESK,
    FOCUS,
    FRAMES,
    OVERLAPS,
    PHONE,
    SHOWN,
    TITLE,
    WALL,
    show,
    shown,
)

pytestmark = [pytest.mark.browser, pytest.mark.long]

LAPTOP = Path(__file__).parents[1] / "machines" / "laptop.json"
NIC = "0000:00:14.3"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def laptop(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.replay(LAPTOP, tmp_path / "laptop")
    assert run("prepare", "vm1", "02:00.0", "1-7", *QEMU, host=host).returncode == 0
    return host


@pytest.mark.parametrize("size", [PHONE, DESK, WALL], ids=["phone", "desk", "wall"])
@pytest.mark.parametrize("make", [large, hostile, deep])
def test_nothing_overlaps_on_a_page(
    browser: Page, tmp_path: Path, make: Callable[[Path], SimulatedHost], size: tuple[int, int]
) -> None:
    url = show(browser, make(tmp_path / "host"), size)
    assert json.loads(browser.evaluate(OVERLAPS)) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    browser.evaluate("document.querySelector('#tree li li .row').click()")
    assert json.loads(browser.evaluate(OVERLAPS)) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert (browser.requests, browser.complaints) == ([url], [])


@pytest.mark.parametrize(
    "make", [large, hostile, deep, None], ids=["large", "hostile", "deep", "laptop"]
)
def test_nothing_overlaps_in_a_picture(
    browser: Page,
    tmp_path: Path,
    laptop: SimulatedHost,
    make: Callable[[Path], SimulatedHost] | None,
) -> None:
    host = make(tmp_path / "host") if make else laptop
    url = show(browser, host, draw=svg.draw)
    bad = json.loads(browser.evaluate(FRAMES))
    # What a device calls itself may be longer than any estimate: its frame cuts it.
    assert [each for each in bad if each[0] != "long" or make is not hostile] == []
    assert (browser.requests, browser.complaints) == ([url], [])


@pytest.mark.parametrize("draw", [page.draw, svg.draw])
def test_light_and_dark_are_those_of_the_reader(
    browser: Page, laptop: SimulatedHost, draw: Callable[[Topology], str]
) -> None:
    looks: list[list[str]] = []
    for dark in (False, True):
        show(browser, laptop, draw=draw, dark=dark)
        looks.append(
            browser.evaluate(
                "['.lent', 'h1, text', '.page, body'].map((each) => document.querySelector(each))"
                ".map((each) => getComputedStyle(each))"
                ".map((each) => each.color + each.fill + each.backgroundColor)"
            )
        )
    assert all(light != dark for light, dark in zip(*looks, strict=True))


def test_a_tree_is_walked_by_its_keys(browser: Page, laptop: SimulatedHost) -> None:
    show(browser, laptop)
    assert browser.evaluate("document.querySelectorAll('#tree [tabindex=\"0\"]').length") == 1
    browser.evaluate("document.querySelector('.filters button:last-child').focus()")
    browser.press("Tab")
    assert browser.evaluate(FOCUS) == "pci0000:00"
    browser.press("ArrowDown", "ArrowDown")
    assert browser.evaluate(FOCUS) == browser.evaluate(TITLE) == "0000:00:01.0"
    browser.press("ArrowRight")
    assert browser.evaluate(FOCUS) == "0000:01:00.0"
    browser.press("ArrowLeft")
    assert browser.evaluate(FOCUS) == "0000:00:01.0"
    before = shown(browser)
    browser.press("ArrowLeft")
    assert sorted({*before} - {*shown(browser)}) == [f"0000:01:00.{n}" for n in range(4)]
    assert browser.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    browser.press("ArrowDown")
    assert browser.evaluate(FOCUS) == "0000:00:02.0"
    browser.press("ArrowUp", "ArrowRight")
    assert shown(browser) == before
    browser.press("End")
    assert browser.evaluate(FOCUS) == before[-1]
    place = "document.activeElement.querySelector('.row').getBoundingClientRect()"
    assert browser.evaluate(f"{place}.bottom <= innerHeight")
    browser.press("Home", "ArrowUp")
    assert browser.evaluate(FOCUS) == before[0]
    assert browser.evaluate(
        f"{place}.top >= document.querySelector('header').getBoundingClientRect().bottom"
    )
    browser.press("Escape")
    assert browser.evaluate(TITLE) is None
    assert browser.evaluate("document.querySelectorAll('#tree [tabindex=\"0\"]').length") == 1
    assert browser.complaints == []


def test_a_search_leaves_what_is_asked_for_and_what_it_hangs_on(
    browser: Page, laptop: SimulatedHost
) -> None:
    show(browser, laptop)
    everything = shown(browser)
    browser.press("/")
    browser.write("wlo1 CNVi")
    assert shown(browser) == ["pci0000:00", NIC]
    assert browser.evaluate("document.getElementById('found').textContent") == "1 found"
    browser.press("ArrowDown", "ArrowDown")
    assert browser.evaluate(FOCUS) == NIC
    browser.press("/", "Escape")
    assert shown(browser) == everything
    browser.write("no such thing")
    assert shown(browser) == []
    assert browser.evaluate("document.getElementById('found').textContent") == "0 found"


def test_filters_leave_what_is_lent_and_to_whom(browser: Page, laptop: SimulatedHost) -> None:
    show(browser, laptop)
    everything = shown(browser)
    browser.click('[data-domain="vm1 (qemu)"]')
    assert [name for name in shown(browser) if name in {"1-7", "0000:02:00.0"}] != []
    assert "1-14" not in shown(browser)
    assert browser.evaluate("document.getElementById('found').textContent") == "2 found"
    browser.click('[data-code="available"]')
    assert shown(browser) == []
    browser.click('[data-domain="vm1 (qemu)"]')
    browser.click('[data-code="available"]')
    assert shown(browser) == everything
    browser.click("#fold")
    assert shown(browser) == ["pci0000:00"]
    browser.click("#fold")
    assert shown(browser) == everything


def test_details_lead_to_the_rest_of_the_group(browser: Page, laptop: SimulatedHost) -> None:
    show(browser, laptop, PHONE)
    browser.click('[id="row-at-0000:01:00.0"]')
    assert browser.evaluate(TITLE) == "0000:01:00.0"
    details = browser.evaluate("document.querySelector('#details dl').innerText")
    assert "NVIDIA" in details
    assert "shares it with" in details
    browser.click('#details a[href="#at-0000:01:00.3"]')
    browser.evaluate("new Promise((done) => requestAnimationFrame(done))")
    assert browser.evaluate(TITLE) == "0000:01:00.3"
    # The row is above the details, which lie over the tree of a phone.
    assert browser.evaluate(
        "document.querySelector('[aria-selected=true] .row').getBoundingClientRect().bottom"
        " <= document.getElementById('details').getBoundingClientRect().top"
    )
    browser.click("#close")
    assert browser.evaluate(TITLE) is None


def test_a_screen_reader_hears_a_tree_of_named_items(browser: Page, laptop: SimulatedHost) -> None:
    show(browser, laptop)
    browser.ask("Accessibility.enable")
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    named = [
        (each["role"]["value"], each.get("name", {}).get("value", ""))
        for each in nodes
        if not each["ignored"]
    ]
    items = [name for role, name in named if role == "treeitem"]
    assert sorted(name.split()[0] for name in items) == sorted(shown(browser))
    assert ("tree", "PCI and USB devices") in named
    assert ("searchbox", "Search the devices") in named
    (lent,) = (name for name in items if name.startswith("0000:02:00.0"))
    assert lent.endswith("lent to vm1 (qemu)")
    assert "group 14" in lent


def test_hostile_texts_do_nothing_in_a_browser(browser: Page, tmp_path: Path) -> None:
    host = hostile(tmp_path / "host")
    with connect(host) as conn:
        card = PCIHostdev(address=PCIAddress.parse("0000:01:00.0"), allow=frozenset({"in-use"}))
        conn.prepare_hostdevs(Domain(DOMAIN, [card]))
    for draw in (page.draw, svg.draw):
        url = show(browser, host, draw=draw)
        assert browser.evaluate("window.got") is None
        assert browser.evaluate(
            f"document.documentElement.textContent.includes({json.dumps(NASTY)})"
        )
        assert browser.evaluate("document.querySelectorAll('img').length") == 0
        assert (browser.requests, browser.complaints) == ([url], [])


def test_nothing_leaves_a_page_whatever_gets_into_it(browser: Page, laptop: SimulatedHost) -> None:
    show(browser, laptop)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        place = f"http://127.0.0.1:{server.getsockname()[1]}/"
        answer = browser.evaluate(
            f"""(async () => {{
              const tried = [fetch("{place}").then(() => "went", () => "kept")];
              for (const [name, key] of [["img", "src"], ["script", "src"], ["link", "href"]]) {{
                const each = document.createElement(name);
                if (name === "link") each.rel = "stylesheet";
                each[key] = "{place}";
                tried.push(new Promise((done) => {{
                  each.onload = () => done("went");
                  each.onerror = () => done("kept");
                }}));
                document.body.append(each);
              }}
              document.body.insertAdjacentHTML("beforeend", '<b onclick="window.got = 1">x</b>');
              document.body.lastChild.click();
              return (await Promise.all(tried)).join() + window.got;
            }})()"""
        )
        assert answer == "kept,kept,kept,kept" + "undefined"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_without_its_script_a_page_has_the_whole_tree(browser: Page, laptop: SimulatedHost) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        show(browser, laptop)
        items = browser.evaluate(SHOWN)
        assert len(items) == len([node for root in read(laptop).roots for node in root.walk()])
        assert browser.evaluate("document.querySelector('.tools').hidden")
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)
