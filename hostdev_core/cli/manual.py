"""The manual pages, as roff: of each command from its parser, of `hostdev` with the text of the guide."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hostdev_core import __version__
from hostdev_core.cli import roff
from hostdev_core.cli.arguments import Parser
from hostdev_core.cli.grammar import Command, Option, common_names, read_command
from hostdev_core.cli.parser import make_parser

GUIDE = Path(__file__).with_name("guide.md")
"""docs/cli.md of the checkout, which the package brings along."""


def page(names: Sequence[str]) -> str:
    """The page of a command, by its names; of the program without one. UsageError for a name that is none."""
    parser = make_parser()
    lines = _of_command(parser, names) if names else _of_program(parser)
    return "\n".join(lines) + "\n"


def every_page() -> dict[str, str]:
    """All pages, by the names that man(1) knows them by: `hostdev`, `hostdev-device-detach`."""
    return {"-".join(["hostdev", *names]): page(names) for names in _all_names(make_parser())}


def _all_names(parser: Parser) -> Iterator[list[str]]:
    yield []
    for name, below in (parser.commands.choices if parser.commands else {}).items():
        for names in _all_names(below):
            yield [name, *names]


def _of_program(parser: Parser) -> Iterator[str]:
    program = read_command(parser)
    preamble, *sections = GUIDE.read_text(encoding="utf-8").split("\n## ")
    # The tables of the guide's beginning are those of the parser.
    told = [part for part in preamble.split("\n\n")[1:] if not part.startswith(("|", "```"))]
    yield from _head("hostdev", program.help[:1].lower() + program.help[1:].removesuffix("."))
    yield from (roff.section("synopsis"), roff.bold("hostdev"), "[OPTION...] COMMAND ...")
    yield from (roff.section("description"), *roff.body("\n\n".join(told)))
    yield from (roff.section("commands"), *_actions(program))
    yield from (roff.section("options"), *_options(program.options))
    for part in sections:
        yield from roff.body(f"## {part}")
    yield from _see_also(["hostdev-" + name for name, _ in program.actions])


def _of_command(parser: Parser, names: Sequence[str]) -> Iterator[str]:
    command = read_command(parser.below(names), common_names(parser))
    yield from _head("-".join(["hostdev", *names]), command.help)
    words = command.usage.removeprefix(command.name)
    yield from (roff.section("synopsis"), roff.bold(command.name), roff.text(words.strip()))
    if command.actions:
        yield from (roff.section("actions"), *_actions(command))
    yield roff.section("options")
    for word in command.words:
        if word.help:
            yield from roff.entry(roff.text(word.value.name), word.help)
    yield from _options(command.options)
    yield from roff.body(
        "The options of every command, the exit codes and the JSON are in `hostdev`(1)."
    )
    if command.epilog:
        yield from (roff.section("json"), *roff.body(command.epilog))
    yield from _see_also(
        ["hostdev", *("-".join(["hostdev", *names, n]) for n, _ in command.actions)]
    )


def _head(name: str, help: str) -> Iterator[str]:
    yield f'.TH "{name.upper()}" 1 "" "hostdev {__version__}" "hostdev"'
    yield from (".nh", ".ad l", roff.section("name"), f"{roff.text(name)} \\- {roff.text(help)}")


def _actions(command: Command) -> Iterator[str]:
    for name, about in command.actions:
        yield from roff.entry(roff.bold(name), about)


def _options(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        yield from roff.entry(", ".join(map(roff.bold, option.written)), option.help)


def _see_also(pages: Sequence[str]) -> Iterator[str]:
    yield from (roff.section("see also"), ", ".join(f"{roff.bold(name)}(1)" for name in pages))
