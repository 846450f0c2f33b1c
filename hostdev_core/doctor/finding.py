"""What `hostdev doctor` finds: values, and the codes by which scripts and people know them."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from hostdev_core.host import Host


class Level(StrEnum):
    """How much a finding matters; the worst comes first."""

    PROBLEM = "problem"  # devices cannot be lent, or are not where the ledger says
    NOTE = "note"  # works, and may surprise
    OK = "ok"


class Finding(NamedTuple):
    """One state of the host.

    `evidence` are the facts, a line each: a file, and what stands in it. `remedy` is what to do, with a
    command or a line to paste between backticks; empty where there is nothing to do.
    """

    code: str
    level: str
    title: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""


class Code(NamedTuple):
    """A state that a finding can tell of.

    Its name stays, and so does its level. A finding may have a title and a remedy of its own, which name
    numbers, the device or the file.
    """

    name: str
    level: Level
    title: str
    remedy: str = ""

    def found(self, *evidence: str, title: str = "", remedy: str = "") -> Finding:
        """Make the finding that this is so."""
        words = title or self.title
        return Finding(self.name, str(self.level), words, evidence, remedy or self.remedy)


Check = Callable[[Host], Iterable[Finding]]


class Topic(NamedTuple):
    """The checks of one subject, and all the codes that their findings have.

    A check raises HostdevError or OSError for what it cannot read.
    """

    title: str
    codes: tuple[Code, ...]
    checks: tuple[Check, ...]
