"""What a mutant is: one safety-critical condition of hostdev, changed so that it fails.

They stand in catalogue.txt below their `file` (in hostdev_core); each with its name after `#`, what is
taken away after `-` and what stands there instead after `+`. `near` names the tests that notice (a file,
or file::test), of one mutant below its name, of all others of a file below that. `=` says why nobody
could notice; such a mutant is not tried.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CATALOGUE = Path(__file__).with_name("catalogue.txt")


class Mutant(NamedTuple):
    """`old` stands once in the file and becomes `new`; a test in `near` should notice."""

    file: str
    near: tuple[str, ...]
    name: str
    old: str = ""
    new: str = ""
    equivalent: str = ""

    @property
    def path(self) -> Path:
        """The file, below the checkout."""
        return Path("hostdev_core") / self.file

    def applied(self, text: str) -> str:
        """The file's text with the mutation; ValueError when it does not fit any more."""
        if not self.old or text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.name}: {text.count(self.old)} places for it")
        return text.replace(self.old, self.new)


def read(text: str) -> Iterator[Mutant]:
    """The mutants of a catalogue."""
    file, near, current = "", (), None
    for line in text.splitlines():
        mark, rest = line[:1], line[2:]
        if mark == "#":
            if current is not None:
                yield current
            current = Mutant(file, near, rest)
        elif current is not None and mark in {"-", "+"}:
            field = "old" if mark == "-" else "new"
            before = getattr(current, field)
            current = current._replace(**{field: f"{before}\n{rest}" if before else rest})
        elif current is not None and mark == "=":
            current = current._replace(equivalent=rest)
        elif line.startswith("file "):
            if current is not None:
                yield current
            file, near, current = line.split()[1], (), None
        elif line.startswith("near "):
            tests = tuple(f"tests/{word}" for word in line.split()[1:])
            if current is None:
                near = tests
            else:
                current = current._replace(near=tests)
    if current is not None:
        yield current


MUTANTS = [*read(CATALOGUE.read_text(encoding="utf-8"))]
