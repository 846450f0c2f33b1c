"""argparse, with errors of one line that suggest what was probably meant."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, cast

from hostdev_core.errors import InputError
from hostdev_core.model.address import quoted
from hostdev_core.model.spelling import nearest

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]  # pyright: ignore[reportPrivateUsage]


class UsageError(InputError):
    """A command line that the parser does not take; the message names the help that tells more."""


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, and suggests a near name for one that is misspelt."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Raise the error about words that the parser does not know."""
        found = (nearest(w.partition("=")[0], self._option_string_actions, 0.7) for w in words)
        near = "".join(f"; did you mean {name}?" for name in [*filter(None, found)][-1:])
        told = ", ".join(map(quoted, words))
        self.error(f"{told} {'is' if len(words) == 1 else 'are'} not known here{near}")

    @property
    def actions(self) -> Sequence[argparse.Action]:
        """Its options and words, in the order in which they were added."""
        return self._actions

    @property
    def commands(self) -> "Commands | None":
        """The action whose choices are the parsers of its commands; None where it takes none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
                return cast("Commands", action)
        return None

    def below(self, names: Sequence[str]) -> "Parser":
        """Find the parser of a command, and of its action, by their names; UsageError for none."""
        commands = self.commands
        if not names:
            return self
        if commands is None:
            self.error(f"{quoted(names[0])} is no command below `{self.prog}`, which has none")
        self._check_value(commands, names[0])
        return commands.choices[names[0]].below(names[1:])

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [*map(str, action.choices)]
            found = nearest(str(value), known, 0.5)
            near = f"did you mean {found}? " if found else ""
            self.error(
                f"{quoted(value)} is no {action.metavar or action.dest}; {near}there are: {', '.join(known)}"
            )

    def print_help(self, file: object = None) -> None:
        """Print the help like any other output: a closed pipe is no error."""
        from hostdev_core.cli.output import emit

        emit(self.format_help().rstrip())


class Version(argparse.Action):
    """`--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> NoReturn:
        from hostdev_core import __version__
        from hostdev_core.cli.output import emit

        emit(f"hostdev {__version__}")
        parser.exit()
