"""The reference of the command, as Markdown, read from its parser."""

from collections.abc import Iterator

from hostdev_core.cli.grammar import Command, common_names, read_command, read_commands
from hostdev_core.cli.parser import make_parser


def reference() -> str:
    """A section for the options that all commands have, and one for each command."""
    parser = make_parser()
    lines = ["## Options of every command", "", *_table(read_command(parser))]
    for command in read_commands(parser, common_names(parser)):
        lines += ["", f"## {command.name}", ""]
        lines += [f"{command.help[:1].upper()}{command.help[1:]}.", ""]
        lines += ["```text", command.usage, "```", "", *_table(command)]
    return "\n".join(lines) + "\n"


def _table(command: Command) -> Iterator[str]:
    """A row for each option and word that has a help text."""
    rows = [(option.written, option.help) for option in command.options]
    rows += [((word.value.name,), word.help) for word in command.words]
    shown = [(forms, told) for forms, told in rows if told]
    if shown:
        yield "| option | meaning |\n| --- | --- |"
    for forms, told in shown:
        written = ", ".join(f"`{form}`" for form in forms)
        yield "| {} | {} |".format(*(text.replace("|", r"\|") for text in (written, told)))
