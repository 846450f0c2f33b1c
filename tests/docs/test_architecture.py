"""The page about the architecture names what there is: files, functions, and every global with state."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import PAGES, ROOT, inline

CORE = ROOT / "hostdev_core"
PAGE = ROOT / "docs" / "architecture.md"
IN_FILE = re.compile(r"([\w/]+\.py)(?::([\w.]+))?")
DOTTED = re.compile(r"([A-Z]\w+)\.(\w+)")
IN_TREE = re.compile(r"[\w.-]+/[\w./-]*(\.py|/)")
NAME = re.compile(r"_?[A-Za-z]\w*")
# Made once and never changed.
STATELESS = {
    "logging.getLogger",
    "pluggy.HookspecMarker",
    "pluggy.HookimplMarker",
    "pytest.mark.parametrize",
    "sys.exit",
}
CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault"}
CHANGING |= {"popitem", "update"}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def find(path: str) -> Path:
    return CORE / path if (CORE / path).exists() else ROOT / path


def targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign | ast.Delete):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def names_in(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module or a class defines."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        yield from (target.id for target in targets(node) if isinstance(target, ast.Name))


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
    codes = inline(PAGE)
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


def test_the_table_has_every_room_in_the_order_of_imports() -> None:
    contributing = ROOT / "CONTRIBUTING.md"
    packages = re.findall(r"^\| `hostdev_core/(\w+)/` \|", contributing.read_text(), re.MULTILINE)
    assert packages == [room for room in drawing().settings()["layers"] if (CORE / room).is_dir()]
    told = {code.rstrip("/") for code in inline(contributing) if code.startswith("tests/")}
    there = {
        f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if path.name[0] not in "._"
    }
    assert there - {"tests/conftest.py"} <= told
    front_door = {path.name for path in CORE.glob("[!_]*.py")}
    assert front_door <= {*inline(contributing)}


def state_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a module keeps for the whole process, each with its line."""
    capitals = {name for name in names_in(tree.body) if name.isupper()}
    for node in statements(tree.body):
        call = node.value if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign) else None
        made_by = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
        if isinstance(node, ast.Expr) and made_by and made_by not in STATELESS:
            yield made_by, node.lineno
        for target in targets(node):
            name = ast.unparse(target)
            is_alias = isinstance(getattr(node, "value", None), ast.Name)
            if name.islower() and not (name.startswith("__") or is_alias or made_by in STATELESS):
                yield name, node.lineno
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield from ((name, inner.lineno) for name in inner.names)
        if isinstance(inner, ast.FunctionDef):
            for decorator in inner.decorator_list:
                if re.match(r"(functools\.)?(lru_)?cache\b", ast.unparse(decorator)):
                    yield inner.name, decorator.lineno
        for target in targets(inner):
            if isinstance(target, ast.Subscript):
                place = ast.unparse(target.value)
                if place in {"globals()", "sys.modules", *capitals}:
                    yield place.removesuffix("()"), target.lineno
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            changed = ast.unparse(inner.func.value)
            if changed in capitals and inner.func.attr in CHANGING:
                yield changed, inner.lineno


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, but those of a script."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "__main__" not in ast.unparse(node.test):
            yield from statements([*node.body, *node.orelse])
        if isinstance(node, ast.Try | ast.With | ast.For):
            yield from statements(node.body)


def sources() -> Iterator[tuple[str, Path]]:
    for root in (CORE, ROOT / "drivers"):
        yield from ((str(path.relative_to(root)), path) for path in sorted(root.rglob("*.py")))


def test_every_global_with_state_is_on_the_page_with_its_reason() -> None:
    table = PAGE.read_text().partition("## Module globals with state")[2]
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


def drawing() -> ModuleType:
    """Load docs/_ext/draw_rooms.py, a folder that only Sphinx has on its path."""
    spec = spec_from_file_location("draw_rooms", ROOT / "docs" / "_ext" / "draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_of_the_rooms_is_of_these_imports() -> None:
    rooms = drawing()
    told = "the imports have changed: python docs/_ext/draw_rooms.py"
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), told


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    rooms = drawing()
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set[str](), "d": set[str]()}
    assert rooms.reduce(arrows) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert rooms.rows_of("abcd", arrows) == [["a"], ["b"], ["c", "d"]]
