"""What a browser shows of a machine, and the measures of it."""

from collections.abc import Callable
from pathlib import Path

from hostdev_core.simulated import SimulatedHost
from hostdev_core.topology import page
from hostdev_core.topology.tree import Topology
from tests.helpers.chromium import Page
from tests.topology.machines import read

PHONE, DESK, WALL = (360, 740), (1280, 800), (2560, 1440)
# Of each row that is shown: cells beyond the page, and pairs of cells of which one lies on the other.
OVERLAPS = """
(() => {
  const bad = [], wide = document.documentElement.clientWidth;
  const inside = (one, two) => Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1
    && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 1;
  for (const row of document.querySelectorAll("#tree .row")) {
    const cells = [...row.children].filter((each) => each.getClientRects().length && each.textContent.trim());
    const boxes = cells.map((each) => each.getBoundingClientRect());
    boxes.forEach((box, at) => {
      if (box.right > wide + 1 || box.left < -1) bad.push(["beyond", cells[at].textContent]);
      for (let other = 0; other < at; other++)
        if (inside(box, boxes[other])) bad.push([cells[at].textContent, cells[other].textContent]);
    });
  }
  const rows = [...document.querySelectorAll("#tree .row")].map((each) => each.getBoundingClientRect());
  rows.forEach((row, at) => { if (at && row.top < rows[at - 1].bottom - 1) bad.push(["row", at]); });
  return JSON.stringify(bad.slice(0, 9));
})()
"""
# Of each text of a picture: whether its frame lies on another one, and whether it is longer than the frame.
FRAMES = """
(() => {
  const frames = [...document.querySelectorAll("svg svg")].map((each) => {
    const x = each.x.baseVal.value, y = each.y.baseVal.value;
    const text = each.querySelector("text").getBBox();
    return { x, y, right: x + each.width.baseVal.value, bottom: y + each.height.baseVal.value,
      name: each.textContent, long: text.x + text.width - each.width.baseVal.value,
      shown: getComputedStyle(each).overflow };
  });
  const bad = [], { width, height } = document.documentElement.viewBox.baseVal;
  frames.sort((one, two) => one.y - two.y || one.x - two.x).forEach((frame, at) => {
    const next = frames[at + 1];
    if (next && next.y === frame.y && next.x < frame.right) bad.push([frame.name, next.name]);
    if (next && next.y > frame.y && next.y < frame.bottom) bad.push(["lines", frame.name]);
    if (frame.right > width || frame.bottom > height) bad.push(["beyond", frame.name]);
    if (frame.shown !== "hidden") bad.push(["open", frame.name]);
    if (frame.long > 1) bad.push(["long", frame.long, frame.name]);
  });
  return JSON.stringify(bad.slice(0, 9));
})()
"""
SHOWN = """[...document.querySelectorAll("#tree [role=treeitem]")]
  .filter((each) => each.getClientRects().length).map((each) => each.querySelector(".address").textContent)"""
FOCUS = "document.activeElement.id.replace(/^at-/, '')"
TITLE = "document.querySelector('#details:not([hidden]) h2')?.textContent"


def show(
    browser: Page,
    host: SimulatedHost,
    size: tuple[int, int] = DESK,
    *,
    draw: Callable[[Topology], str] = page.draw,
    dark: bool = False,
) -> str:
    """Show the page, or another picture, of a machine; its address."""
    file = Path(f"{host.root}.{'html' if draw is page.draw else 'svg'}")
    file.write_text(draw(read(host)), encoding="utf-8")
    browser.open(file.as_uri(), *size, dark=dark)
    return file.as_uri()


def shown(browser: Page) -> list[str]:
    found: list[str] = browser.evaluate(SHOWN)
    return found
