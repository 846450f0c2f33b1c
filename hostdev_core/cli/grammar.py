"""The command line as values, read from its parser: for completion, manual pages and the reference."""

import argparse
from collections.abc import Collection, Iterator
from typing import NamedTuple

from hostdev_core.cli.arguments import Parser

_REPEATED = (argparse._AppendAction, argparse._CountAction)  # pyright: ignore[reportPrivateUsage]


class Value(NamedTuple):
    """What an option or a word takes: its name in capitals, and what it may be, if that is known."""

    name: str
    choices: tuple[str, ...] = ()


class Option(NamedTuple):
    """An option: how it is written, the value that it takes, if any; `dest` names it in the code."""

    forms: tuple[str, ...]
    value: Value | None
    help: str
    dest: str
    repeats: bool

    @property
    def written(self) -> tuple[str, ...]:
        """Each form with its value: `-c URI`, `--connect URI`."""
        return tuple(f"{form} {self.value.name}" if self.value else form for form in self.forms)


class Word(NamedTuple):
    """A word that is no option."""

    value: Value
    help: str
    repeats: bool
    is_optional: bool

    @property
    def written(self) -> str:
        """The word as a usage has it: `DOMAIN`, `DEVICE...`, `[FILE]`."""
        name = self.value.name + ("..." if self.repeats else "")
        return f"[{name}]" if self.is_optional else name


class Command(NamedTuple):
    """A command: its name with the program's, what it does, and what it takes.

    `options` are its own, without those of every command; `actions` are the names and the help of the
    commands below it. `epilog` is what its help ends with.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[Word, ...]
    actions: tuple[tuple[str, str], ...]
    epilog: str

    @property
    def usage(self) -> str:
        """Its words, after the program's name."""
        more = ["ACTION"] if self.actions else [word.written for word in self.words]
        return " ".join([self.name, "[OPTION...]", *more])


def read_command(parser: Parser, common: Collection[str] = ()) -> Command:
    """Read one parser; options whose `dest` is in `common` are left out."""
    actions = [a for a in parser.actions if a.help != argparse.SUPPRESS]
    below = parser.commands
    return Command(
        parser.prog,
        parser.description or "",
        tuple(_option(a) for a in actions if a.option_strings and a.dest not in common),
        tuple(_word(a) for a in actions if not a.option_strings and a is not below),
        tuple(below_help(parser)),
        parser.epilog or "",
    )


def read_commands(parser: Parser, common: Collection[str]) -> Iterator[Command]:
    """Read each command below a parser that takes no further command."""
    if parser.commands is None:
        yield read_command(parser, common)
        return
    for below in parser.commands.choices.values():
        yield from read_commands(below, common)


def common_names(parser: Parser) -> set[str]:
    """The `dest` of each option that every command has: those of the parser of the whole command."""
    return {action.dest for action in parser.actions if action.option_strings}


def below_help(parser: Parser) -> Iterator[tuple[str, str]]:
    """The name and the help of each command below a parser."""
    if parser.commands is not None:
        for each in parser.commands._get_subactions():  # pyright: ignore[reportPrivateUsage]
            yield each.dest, each.help or ""


def _option(action: argparse.Action) -> Option:
    return Option(
        tuple(action.option_strings),
        _value(action) if action.nargs != 0 else None,
        _plain(action.help),
        action.dest,
        isinstance(action, _REPEATED),
    )


def _word(action: argparse.Action) -> Word:
    return Word(
        _value(action),
        _plain(action.help),
        action.nargs in {"+", "*"},
        action.nargs in {"?", "*"},
    )


def _value(action: argparse.Action) -> Value:
    metavar = action.metavar or action.dest.upper()
    choices = tuple(map(str, action.choices)) if action.choices is not None else ()
    return Value(metavar if isinstance(metavar, str) else " ".join(metavar), choices)


def _plain(help: str | None) -> str:
    return (help or "").replace("%%", "%")
