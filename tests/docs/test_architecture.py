"""The page about the architecture names what there is, and tells the way that a device really goes."""

import ast
import re
import sys
import threading
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from types import FrameType

import pytest

from hostdev_core import Domain, open_connection
from hostdev_core.simulated import make_sample
from tests.docs.pages import ARCHITECTURE, PAGES, ROOT, inline
from tests.docs.source import CORE, find, names_in, parse, state_of
from tests.sample import NIC, connect, make_host

IN_FILE = re.compile(r"([\w/]+\.py)(?::([\w.]+))?")
DOTTED = re.compile(r"([A-Z]\w+)\.(\w+)")
IN_TREE = re.compile(r"[\w.-]+/[\w./-]*(\.py|/)")
NAME = re.compile(r"_?[A-Za-z]\w*")
# Named on the way of one device, and met only where it is another one: a worker, a failure.
OTHER_WAYS = {
    "worker/run.py:run_in_worker",
    "local_driver.py:LocalHostdevDriver.open_backend",
    "lending/prepare.py:Prepare._failed",
    "lending/stuck.py:mark_stuck",
    "planning/conflicts.py:check_free",
}


def has(path: Path, name: str) -> bool:
    """Whether a file defines a name, "function" or "Class.member", or has it as state."""
    if name in {found for found, _ in state_of(parse(path))}:
        return True
    first, _, member = name.partition(".")
    body = parse(path).body
    if not member:
        return first in names_in(body)
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == first]
    return any(member in names_in(each.body) for each in classes)


@cache
def words() -> frozenset[str]:
    """Every name and every text that the code has."""
    found: set[str] = set()
    for path in CORE.rglob("*.py"):
        for node in ast.walk(parse(path)):
            for field in ("name", "arg", "attr", "id", "value"):
                word = getattr(node, field, None)
                found |= {word} if isinstance(word, str) else set()
    return frozenset(found)


def mistake(code: str) -> str | None:
    """What is wrong with a piece of code on the page; None for what is there, or is no name."""
    if match := IN_FILE.fullmatch(code):
        path = find(match[1])
        if not path.is_file():
            return f"{code}: there is no such file"
        return None if match[2] is None or has(path, match[2]) else f"{code}: not in that file"
    if code.endswith("/"):
        return None if find(code).is_dir() else f"{code}: there is no such folder"
    if match := DOTTED.fullmatch(code):
        found = any(has(path, code) for path in CORE.rglob("*.py"))
        return None if found else f"{code}: no class has that"
    is_name = NAME.fullmatch(code)
    return f"{code}: the code has no such word" if is_name and code not in words() else None


def test_all_that_the_page_names_is_there() -> None:
    codes = inline(ARCHITECTURE)
    assert len([code for code in codes if IN_FILE.fullmatch(code)]) > 80
    assert [wrong for code in codes if (wrong := mistake(code))] == []


@pytest.mark.parametrize(
    "code",
    [
        "lending/leap.py",
        "lending/claim.py:claims",
        "lending/restore.py:Restore.come",
        "leap/",
        "Prepare.leap",
        "_leapt",
    ],
)
def test_a_name_that_is_not_there_is_noticed(code: str) -> None:
    assert mistake(code)


@pytest.mark.parametrize(
    "page", [ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_files_and_folders_that_a_page_names_are_there(page: Path) -> None:
    """Those with a slash: a name alone may be a reader's own file."""
    codes = [code for code in inline(page) if IN_TREE.fullmatch(code)]
    assert [
        code for code in codes if not (find(code).exists() or (page.parent / code).exists())
    ] == []


class Calls:
    """The functions of hostdev_core that are called in the block, in any thread."""

    def __init__(self) -> None:
        self.made: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(f"{CORE}/"):
            place = code.co_filename.removeprefix(f"{CORE}/")
            # A decorator's own function ran at the import, what it made runs in the call.
            self.made.add((place, code.co_qualname.partition(".<locals>")[0]))

    def __enter__(self) -> "Calls":
        threading.setprofile(self)
        sys.setprofile(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)


def test_one_device_goes_the_way_that_the_page_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_sample(tmp_path / "host")
    monkeypatch.setenv("HOSTDEV_SIMULATED_HOST", host.root)
    monkeypatch.setenv("HOSTDEV_DISABLE_PLUGINS", "*")
    with Calls() as calls, open_connection("qemu:///system") as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    page = ARCHITECTURE.read_text()
    way = page.partition("## One PCI device")[2].partition("\n## ")[0]
    named = {match.groups() for match in re.finditer(r"`([\w/]+\.py):([\w.]+)`", way)}
    functions = {each for each in named if each[1].rpartition(".")[2][0] not in ascii_uppercase}
    assert len(functions) > 30
    assert {f"{path}:{name}" for path, name in functions - calls.made} == OTHER_WAYS


def test_the_ledger_has_at_each_moment_what_the_page_tells(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    seen: list[tuple[str, bool, bool] | None] = []

    def watch(moment: str) -> None:
        if moment == "after transaction" or moment.startswith("before write"):
            records = host.ledger.records()
            now = [(str(each.phase), each.op is not None, each.confirmed) for each in records]
            if (told := now[0] if now else None) not in seen[-1:]:
                seen.append(told)

    with connect(host) as conn:
        host.watch(watch)
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        host.watch(None)
    assert seen == [
        ("preparing", True, False),
        ("preparing", True, True),
        ("active", False, True),
        ("releasing", True, True),
        None,
    ]
