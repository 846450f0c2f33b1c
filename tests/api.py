"""The public API, written down in docs/api.txt.

    python -m tests.api --write

writes it anew, after a change that is on purpose: CONTRIBUTING.md says which ones are allowed.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import hostdev_core
from hostdev_core import hookspecs, simulated, testing
from hostdev_core.testing import pytest_plugin
from hostdev_core.testing.contract_parts.base import ContractBase

LISTING = Path(__file__).parents[1] / "docs" / "api.txt"
HEADING = """\
The public API of hostdev; `python -m tests.api --write` makes this file, a test compares it.
Members that a class has from another public class stand with that one.
"""


def describe() -> str:
    """All public names with their signatures, one line each, the same on every Python."""
    lines = [HEADING]
    for module in (hostdev_core, testing, simulated):
        lines.append(f"\n[{module.__name__}]")
        for name in sorted(module.__all__):
            lines += _public(name, getattr(module, name))
    lines.append("\n[hooks: hostdev_core.hookspecs]")
    lines += [_function(name, getattr(hookspecs, name)) for name in _hostdev_names(hookspecs)]
    lines.append("\n[fixtures: hostdev_core.testing.pytest_plugin]")
    lines += _hostdev_names(pytest_plugin)
    return "\n".join(lines) + "\n"


def _hostdev_names(module: ModuleType) -> list[str]:
    return sorted(n for n, v in vars(module).items() if n.startswith("hostdev_") and callable(v))


def _public(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, FunctionType):
        yield _function(name, value)
    elif not isinstance(value, type):
        is_union = hasattr(value, "__args__")
        yield f"{name} = {_cleaned(repr(value))}" if is_union else f"{name}: {type(value).__name__}"
    elif issubclass(value, Enum):
        yield f"enum {name}"
        yield from (f"    {key} = {member.value}" for key, member in value.__members__.items())
    else:
        bases = [base for base in value.__bases__ if base is not object]
        yield f"class {name}({', '.join(base.__name__ for base in bases)}){_made_by(value)}"
        yield from (f"    {line}" for line in sorted(_members(value)))


def _made_by(kind: type) -> str:
    """How one is made, as far as that is the class's own affair."""
    if hasattr(kind, "_fields"):
        return f" {_signature(kind)}"
    makers = [base for base in _own(kind) if "__init__" in vars(base)]
    return f" {_signature(vars(makers[0])['__init__'])}" if makers else ""


def _own(kind: type) -> list[type]:
    """The class, and those of its bases that are no public classes themselves."""
    if kind is testing.DriverContract:
        return [ContractBase]  # the other bases hold the tests
    public = {*map(id, map(hostdev_core.__getattribute__, hostdev_core.__all__))}
    return [
        base
        for base in kind.__mro__
        if base is kind or (base.__module__.startswith("hostdev") and id(base) not in public)
    ]


def _members(kind: type) -> Iterator[str]:
    seen: set[str] = {*getattr(kind, "_fields", ())}
    for base in _own(kind):
        fields = {*(field.name for field in getattr(base, "__attrs_attrs__", ()))}
        for name, value in vars(base).items():
            if not (name.startswith("_") or name in seen | fields):
                seen.add(name)
                if (line := _member(base, name, value)) is not None:
                    yield line
        for line in _set_by_init(base):
            name = line.partition(":")[0]
            if name not in seen | fields:
                seen.add(name)
                yield line


def _member(kind: type, name: str, value: Any) -> str | None:
    if isinstance(value, MemberDescriptorType):
        return None
    if "fixture" in type(value).__name__.lower() or hasattr(value, "_pytestfixturefunction"):
        return f"fixture {name}"
    if isinstance(value, property):
        return f"{name}: {_returns(value.fget)}"
    if isinstance(value, cached_property):
        return f"{name}: {_returns(value.func)}"
    if isinstance(value, (classmethod, staticmethod)):
        return f"{type(value).__name__} {_function(name, value.__func__)}"
    if isinstance(value, FunctionType):
        return _function(name, value)
    annotation = inspect.get_annotations(kind).get(name)
    if annotation is None:
        return name
    return f"{name}: {_annotation(annotation)} = {_cleaned(repr(value))}"


def _set_by_init(kind: type) -> Iterator[str]:
    """Public attributes that are declared without a value, or that __init__ sets."""
    declared = inspect.get_annotations(kind)
    yield from (f"{n}: {_annotation(a)}" for n, a in declared.items() if not n.startswith("_"))
    init = vars(kind).get("__init__")
    if not isinstance(init, FunctionType) or hasattr(kind, "__attrs_attrs__"):
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init)))):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_set and (name := ast.unparse(node)).startswith("self.") and name[5] != "_":
            yield name.removeprefix("self.")


def _function(name: str, function: Callable[..., Any]) -> str:
    return f"{name}{_signature(function)}"


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        if parameter.annotation is parameter.empty
        else parameter.replace(annotation=_Shown(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name not in {"self", "cls", "_cls"}
    ]
    returns = signature.return_annotation
    shown = "" if returns in {signature.empty, None} else f" -> {_annotation(returns)}"
    plain = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return _cleaned(str(plain)) + shown


class _Shown:
    """An annotation that inspect prints as it is."""

    def __init__(self, annotation: object) -> None:
        self.text = _annotation(annotation)

    def __repr__(self) -> str:
        return self.text


def _returns(function: Callable[..., Any] | None) -> str:
    assert function is not None
    return _annotation(inspect.signature(function).return_annotation)


def _annotation(annotation: object) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return _cleaned(annotation if isinstance(annotation, str) else repr(annotation))


def _cleaned(text: str) -> str:
    """Without the modules, which differ from Python to Python."""
    return re.sub(r"\b(?:[a-z_][a-z0-9_]*\.)+(?=[A-Za-z])", "", text).replace("NoneType", "None")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        LISTING.write_text(describe(), encoding="utf-8")
    else:
        print(describe(), end="")
