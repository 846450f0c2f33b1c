"""docs/tested-on.md: what ran on which kernel, with which tool; written by the run that it tells of."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from .guest import Guest

HEAD = """\
# Tested on

What `make test-kernel-all` has run on emulated machines ([the kernel lab](../tests/kernel/README.md)), written by the run itself: a row for each case, with the kernel and the tool that took part. In brackets, whose kernel and programs they are: Debian 12's, Debian 13's, or what Debian 13's backports have newer. What is not run says why.

"""  # noqa: E501 (Markdown)
NAMES = {"qemu": "QEMU", "libvirt": "libvirt", "driverctl": "driverctl", "xen": "Xen", "": "none"}
VERSIONS = """
echo kernel; uname -v
echo qemu; qemu-system-x86_64 --version
echo libvirt; libvirtd --version
echo driverctl; zcat /usr/share/doc/driverctl/changelog.Debian.gz | head -n 1
echo xen; cat /sys/hypervisor/version/major /sys/hypervisor/version/minor | tr '\\n' .
cat /sys/hypervisor/version/extra
"""
_versions: dict[Guest, list[tuple[str, str]]] = {}


class Row(NamedTuple):
    """A row of the page: texts, without a `|`."""

    date: str
    kernel: str
    tool: str
    case: str
    result: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What a later run replaces: the same case on the same system, whatever the versions."""
        return (self.kernel.partition(" (")[2], self.case, self.tool.partition(" ")[0])


def read(page: Path) -> list[Row]:
    """The rows of the page; none where there is no page."""
    lines = page.read_text().splitlines() if page.exists() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [Row(*row) for row in cells[2:]]


def write(page: Path, rows: Iterable[Row]) -> None:
    """Write the page anew."""
    table = [Row(*(name.capitalize() for name in Row._fields)), Row(*["---"] * len(Row._fields))]
    table += sorted(rows, key=lambda row: (row.case, row.key))
    page.write_text(HEAD + "".join(f"| {' | '.join(row)} |\n" for row in table))


def versions(guest: Guest) -> list[tuple[str, str]]:
    """The versions that a guest itself tells, by the names of the tools."""
    if guest not in _versions:
        said = guest.run(VERSIONS).stdout
        pattern = r"^(\w+)\n(?!\w+\n).*?((?:\d+\.)+\d+)"
        _versions[guest] = re.findall(pattern, said, re.MULTILINE)
    return _versions[guest]


class _Outcome:
    """What became of the tests of one case on one system."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self.passed = 0
        self.failed: list[str] = []
        self.why_not: list[str] = []

    def result(self) -> str:
        """As it is in the page."""
        if self.why_not and not self.passed and not self.failed:
            return f"not run: {self.why_not[0]}"
        names = ", ".join(dict.fromkeys(self.failed + self.why_not))
        return f"{self.passed} passed" + (f", failed: {names}" if names else "")


class TestedOn:
    """A plugin of pytest that brings the page up to date with what has run."""

    __test__ = False

    def __init__(self, page: Path) -> None:
        self._page = page
        self._outcomes: dict[tuple[str, str, str], _Outcome] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = {str(name): str(value) for name, value in report.user_properties}
        if "case" not in told:
            return
        key = (told["system"], told["tool"], told["case"])
        outcome = self._outcomes.setdefault(key, _Outcome())
        outcome.told |= told
        if report.passed:
            outcome.passed += report.when == "call"
        elif report.when == "setup":
            outcome.why_not.append(_reason(report))
        else:
            outcome.failed.append(report.nodeid.rpartition("::")[2].partition("[")[0])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput") or not self._outcomes:
            return
        rows = {row.key: row for row in read(self._page)}
        new = [_row(outcome) for outcome in self._outcomes.values()]
        write(self._page, (rows | {row.key: row for row in new}).values())


def _row(outcome: _Outcome) -> Row:
    told = outcome.told
    tool = f"{NAMES[told['tool']]} {told.get(told['tool'], '')}".strip()
    kernel = f"{told.get('kernel', '')} ({told['system']})".strip()
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Row(today, kernel, tool, told["case"], outcome.result().replace("|", "/"))


def _reason(report: pytest.TestReport) -> str:
    """Why a test was not run: what it was skipped for, or the first line of what its machine said."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", report.longrepr)).splitlines()[0]
