"""Every global that keeps state is on the page about the architecture, and has its reason beside it."""

import ast
import re

import pytest

from tests.docs.pages import ARCHITECTURE
from tests.docs.source import parse, sources, state_of


def test_every_global_with_state_is_on_the_page_with_its_reason() -> None:
    table = ARCHITECTURE.read_text().partition("## Module globals with state")[2]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    told = {code for row in rows for code in re.findall("`([^`]+)`", row)}
    assert told == {
        f"{name}:{state}" for name, path in sources() for state, _ in state_of(parse(path))
    }


def test_every_global_with_state_has_its_reason_beside_it() -> None:
    bare: list[str] = []
    for name, path in sources():
        lines = path.read_text().splitlines()
        for state, number in state_of(parse(path)):
            above = number - 2
            while re.match(r"\s*[\w.]+\b.* = ", lines[above]):  # several that share a reason
                above -= 1
            if "  # " not in lines[number - 1] and not lines[above].lstrip().startswith("# "):
                bare.append(f"{name}:{state}")
    assert bare == []


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("known = {}", ["known"]),
        ("if True:\n    known: set[int] = set()", ["known"]),
        ("KNOWN = {}\ndef f():\n    KNOWN['a'] = 1", ["KNOWN"]),
        ("_KNOWN = []\ndef f():\n    _KNOWN.append(1)", ["_KNOWN"]),
        ("@functools.cache\ndef f(): ...", ["f"]),
        ("def f():\n    global x\n    x = 1", ["x"]),
        ("atexit.register(print)", ["atexit.register"]),
        ("pyudev: Any = _pyudev  # brings no types", []),
        ("log = logging.getLogger('a')\nNAMES = {'a': 1}\nT = TypeVar('T')", []),
    ],
)
def test_what_counts_as_state(text: str, states: list[str]) -> None:
    assert [name for name, _ in state_of(ast.parse(text))] == states
