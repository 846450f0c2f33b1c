"""What the source tree promises of itself, read with ast."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hostdev_core
from tests.docs.pages import ROOT
from tests.docs.source import CORE, parse

SOURCES = sorted(
    path
    for folder in ("hostdev_core", "drivers", "plugins", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if "build" not in path.relative_to(ROOT).parts
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports when it runs; those for type checkers are exempt."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        for child in tree.orelse:
            yield from imports(child)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    if isinstance(tree, ast.ImportFrom) and tree.module:
        yield tree.module
        yield from (f"{tree.module}.{alias.name}" for alias in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from imports(child)


@pytest.mark.parametrize(
    ("module", "only"),
    [
        ("pyudev", {"kernel/udev.py"}),
        ("pluggy", {"registry/registry.py", "registry/hooks.py", "hookspecs.py"}),
        # The harness damages and locks ledgers.
        ("sqlite3", {"ledger/store.py", "ledger/transaction.py", "testing"}),
        ("pytest", {"testing"}),
        ("rich", {"cli"}),
    ],
)
def test_who_imports_what(module: str, only: set[str]) -> None:
    users = {
        path.relative_to(CORE)
        for path in CORE.rglob("*.py")
        if any(name.split(".")[0] == module for name in imports(parse(path)))
    }
    assert not {user for user in users if not any(user.is_relative_to(place) for place in only)}


def test_no_circle_of_imports() -> None:
    """Also within a room, of which the layers of pyproject.toml say nothing."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in CORE.rglob("*.py")
        if path.name != "__init__.py"
    }
    used = {name: {*imports(parse(path))} & names.keys() for name, path in names.items()}
    assert len([*TopologicalSorter(used).static_order()]) == len(names)


def test_one_door_to_sys() -> None:
    for path in CORE.rglob("*.py"):
        if path.name == "sysfs.py" or "simulated" in path.parts:
            continue
        texts = [n.value for n in ast.walk(parse(path)) if isinstance(n, ast.Constant)]
        assert not [t for t in texts if isinstance(t, str) and re.match(r"/sys(/|$)", t)], path


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_above_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_use_no_mock(path: Path) -> None:
    tree = parse(path)
    assert not {name for name in imports(tree) if "mock" in name.split(".")}
    patched = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "monkeypatch"
    }
    assert patched <= {"setenv", "delenv", "syspath_prepend", "chdir"}


def run(program: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "drivers")))},
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_package_alone_loads_next_to_nothing() -> None:
    heavy = {"pyudev", "rich", "sqlite3", "pluggy", "attrs", "attr", "importlib.metadata"}
    loaded = run(
        "import sys; before = {*sys.modules}; import hostdev_core;print(*({*sys.modules} - before))"
    )
    assert not heavy & {*loaded.split()}


def test_a_listing_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    loaded = run(
        "import sys; before = {*sys.modules}\n"
        "from hostdev_core.host import Host\nfrom hostdev_core.inventory.inventory import look\n"
        f"look(Host(state_dir={str(tmp_path)!r}))\nprint(*({{*sys.modules}} - before))"
    )
    assert not {"pyudev", "rich", "pluggy", "attrs", "attr"} & {*loaded.split()}


def test_every_public_name_resolves() -> None:
    for name in hostdev_core.__all__:
        assert getattr(hostdev_core, name) is not None
    assert {*hostdev_core.__all__} <= {*dir(hostdev_core)}
    with pytest.raises(AttributeError, match="no_such_name"):
        hostdev_core.no_such_name  # noqa: B018


def test_the_names_for_type_checkers_are_the_public_ones() -> None:
    tree = parse(CORE / "__init__.py")
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name))
    typed = {alias.name for n in block.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert typed == {*hostdev_core.__all__} - {"__version__"}


def test_no_public_name_looks_like_a_test() -> None:
    assert not [name for name in hostdev_core.__all__ if name.startswith("Test")]
