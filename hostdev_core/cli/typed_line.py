"""A command line that is being typed: its words, and where the parser stands after the whole ones."""

from collections.abc import Sequence
from typing import NamedTuple

from hostdev_core.cli.grammar import Option, Word, read_command
from hostdev_core.cli.options import Options
from hostdev_core.cli.parser import make_parser


class Line(NamedTuple):
    """The whole words of a line, without the program's, and the last one as far as it is typed.

    `quote` is the quotation mark of the last one that is still open, if any.
    """

    words: Sequence[str]
    last: str
    quote: str = ""


def split(text: str) -> Line:
    """Split what stands before the cursor as a shell would; its first word is the program.

    Quotes that are open still end with the line; variables and globs are left as they are.
    """
    words: list[str] = []
    word: str | None = None  # None: between two words
    quote = ""
    escaped = False
    for letter in text:
        if escaped or (quote and letter != quote and (quote == "'" or letter != "\\")):
            kept = "\\" if escaped and quote and letter not in '$`"\\' else ""
            word, escaped = f"{word or ''}{kept}{letter}", False
        elif letter == "\\":
            word, escaped = word or "", True
        elif letter in {"'", '"'}:
            word, quote = word or "", "" if quote else letter
        elif not letter.isspace():
            word = (word or "") + letter
        elif word is not None:
            words.append(word)
            word = None
    return Line(words[1:], word or "", quote)


class Typed:
    """What the whole words of a line have said, and what the parser wants next.

    `command` is the command that they name, `options` has the places that they name; `waiting` is the
    option whose value is next; `words_only`: "--" was there, so that options are over. `is_lost`: they
    are no beginning of a command line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._parser = make_parser(words)
        self.command = read_command(self._parser)
        self.options = Options()
        self.waiting: Option | None = None
        self.words_only = self.is_lost = False
        self._given: set[str] = set()
        self._count = 0
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self.waiting is not None:
            self._note(self.waiting, word)
            self.waiting = None
        elif word == "--" and not self.words_only:
            self.words_only = True
        elif self.is_option(word):
            self._take_option(word)
        elif self.command.actions:
            self._enter(word)
        else:
            self._count += 1

    def is_option(self, word: str) -> bool:
        """Whether a word would be read as an option here."""
        return word.startswith("-") and not self.words_only

    def option(self, name: str) -> Option | None:
        """The option of the command that is written so."""
        return next((each for each in self.command.options if name in each.forms), None)

    @property
    def open_options(self) -> list[Option]:
        """The options that may still be given."""
        return [each for each in self.command.options if each.dest not in self._given]

    @property
    def next_word(self) -> Word | None:
        """The word that is next; the last one again, where it may be repeated."""
        words = self.command.words
        rest = words[self._count :] or [word for word in words[-1:] if word.repeats]
        return rest[0] if rest else None

    def _take_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option = self.option(name)
        if option is None:
            return  # the command will say so
        self._given |= set() if option.repeats else {option.dest}
        if option.value is not None and equals:
            self._note(option, value)
        elif option.value is not None:
            self.waiting = option

    def _enter(self, name: str) -> None:
        if name in dict(self.command.actions):
            self._parser = self._parser.below([name])
            self.command = read_command(self._parser)
        else:
            self.is_lost = True

    def _note(self, option: Option, value: str) -> None:
        if option.dest in {"host", "state_dir"}:  # where what is alive is looked for
            setattr(self.options, option.dest, value)
