"""The source as ast has it: where a file is, the names it defines, and the state it keeps in globals."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT

CORE = ROOT / "hostdev_core"
# Made once and never changed.
STATELESS = {
    "logging.getLogger",
    "pluggy.HookspecMarker",
    "pluggy.HookimplMarker",
    "pytest.mark.parametrize",
    "sys.exit",
}
CHANGING = {
    *("add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove"),
    *("setdefault", "update"),
}


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
