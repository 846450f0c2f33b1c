"""Examine a host: run every check, each in a process of its own."""

from typing import Any

from hostdev_core.doctor import groups, iommu, machine, other_tools, plugins, records, stubs, vfio
from hostdev_core.doctor.finding import Check, Code, Finding, Level, Topic
from hostdev_core.errors import HostdevError
from hostdev_core.host import Host
from hostdev_core.runtime.in_subprocess import ask_in_subprocess

PATIENCE = 15.0  # seconds for a check; plugins take the longest to load
UNREAD = Code(
    "unread",
    Level.NOTE,
    "A check could not see what it looks for",
    "run it as root; a file that cannot be read, or a look that does not return, is named above",
)
TOPICS = (
    iommu.TOPIC,
    vfio.TOPIC,
    stubs.TOPIC,
    groups.TOPIC,
    records.TOPIC,
    plugins.TOPIC,
    other_tools.TOPIC,
    machine.TOPIC,
    Topic("Any check", (UNREAD,), ()),
)
CHECKS: tuple[Check, ...] = tuple(check for topic in TOPICS for check in topic.checks)
CODES: tuple[Code, ...] = tuple(code for topic in TOPICS for code in topic.codes)


def examine(host: Host, *, patience: float = PATIENCE) -> list[Finding]:
    """Find out what keeps this host's devices from being lent; the worst first, topic by topic.

    Needs no rights, and changes nothing. A check that cannot read, or takes more than `patience` seconds,
    is a finding, too (`unread`): each runs in a process of its own, and one that hangs in the kernel is
    left behind.
    """
    found = [finding for check in CHECKS for finding in _ask(check, host, patience)]
    order = [str(level) for level in Level]
    return sorted(found, key=lambda finding: order.index(finding.level))


def _ask(check: Check, host: Host, seconds: float) -> list[Finding]:
    answer = ask_in_subprocess(lambda: _answer(check, host), seconds)
    if not answer:
        return [UNREAD.found(f"{_name(check)}: no answer within {seconds:g} s")]
    rows: list[tuple[str, str, str, list[str], str]] = answer["findings"]
    return [Finding(code, level, title, (*facts,), do) for code, level, title, facts, do in rows]


def _answer(check: Check, host: Host) -> dict[str, Any]:
    found: list[Finding] = []
    try:
        for finding in check(host):  # what it found before it met something unreadable is kept
            found.append(finding)
    except (HostdevError, OSError) as error:
        found.append(UNREAD.found(f"{_name(check)}: {error}"))
    except Exception as error:  # a mistake of ours must not hide what the other checks found
        found.append(UNREAD.found(f"{_name(check)}: unexpected {type(error).__name__}: {error}"))
    return {"findings": found}


def _name(check: Check) -> str:
    """The subject of a check, as its function is called."""
    return str(getattr(check, "__name__", check)).removeprefix("check_")
