"""The reference of the command, as Markdown, read from its parser."""

import argparse
from collections.abc import Collection, Iterator

from hostdev_core.cli.parser import make_parser


def reference() -> str:
    """A section for the options that all commands have, and one for each command."""
    parser = make_parser()
    common = {action.dest for action in parser._actions}
    lines = ["## Options of every command", "", *_table(parser, ())]
    for command in _commands(parser):
        description = command.description or ""
        lines += ["", f"## {command.prog}", "", f"{description[:1].upper()}{description[1:]}.", ""]
        lines += ["```text", _usage(command, common), "```", "", *_table(command, common)]
    return "\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers below this one that take no further command."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in below:
        for command in action.choices.values():
            yield from _commands(command)
    if not below:
        yield parser


def _usage(parser: argparse.ArgumentParser, common: Collection[str]) -> str:
    own = (action for action in parser._actions if action.dest not in common)
    words = (_word(action) for action in own if not action.option_strings)
    return " ".join([parser.prog, "[OPTION...]", *words])


def _word(action: argparse.Action) -> str:
    name = _forms(action)[0]
    if action.nargs in {"+", "*"}:
        name += "..."
    return f"[{name}]" if action.nargs in {"*", "?"} else name


def _table(parser: argparse.ArgumentParser, common: Collection[str]) -> Iterator[str]:
    """A row for each option and word that has a help text and is not one of `common`."""
    shown = [a for a in parser._actions if a.help and a.dest not in common]
    if shown:
        yield "| option | meaning |\n| --- | --- |"
    for action in shown:
        forms = ", ".join(f"`{form}`" for form in _forms(action))
        yield "| {} | {} |".format(
            *(text.replace("|", r"\|") for text in (forms, action.help or ""))
        )


def _forms(action: argparse.Action) -> list[str]:
    """How it is written: `--stub NAME`, `-v`, DEVICE."""
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return [value]
    return [f"{o} {value}" if action.nargs is None else o for o in action.option_strings]
