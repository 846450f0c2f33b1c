"""The page of the known messages, from their table; `python docs/_ext/known_errors.py` writes it anew."""

from collections.abc import Iterator
from pathlib import Path

from hostdev_core.known_errors.entry import KnownError, Symptom
from hostdev_core.known_errors.table import known_errors

PAGE = Path(__file__).parents[2] / "docs" / "known-errors.md"
HEAD = (
    "# Known errors\n\n"
    "What messages of QEMU, libvirt, xl, Cloud Hypervisor and the Linux kernel about lent devices"
    " mean, and what helps, by what one notices. `hostdev explain` finds the one that it is given"
    " (`--error TEXT`), or all that are in a log on standard input (`--error -`), and says what this"
    " host has of the devices in them.\n\n"
    "In commands DEVICE, GROUP and DOMAIN stand for those that a message is about, NAME, FILE and"
    " PID for others. Each wording has the file and the function that print it, and the versions in"
    " which it was read. This page is written from `hostdev_core/known_errors/` by"
    " `docs/_ext/known_errors.py`.\n"
)


def page() -> str:
    """A section for each symptom, with its messages in the order of their programs."""
    errors = known_errors()
    lines = [HEAD]
    for symptom in Symptom:
        lines += [f"## {symptom.value}", ""]
        for error in errors:
            if error.symptom is symptom:
                lines += _message(error)
    return "\n".join(lines).rstrip() + "\n"


def _message(error: KnownError) -> Iterator[str]:
    yield f"### {error.name}"
    yield ""
    yield "```text"
    yield from (wording.example for wording in error.wordings)
    yield "```"
    yield ""
    yield f"{error.cause}"
    yield ""
    yield f"**What helps:** {error.remedy}"
    yield ""
    yield from (f"- {_code(command)}" for command in error.commands)
    yield ""
    places = dict.fromkeys(f"{each.source}; {each.versions}" for each in error.wordings)
    yield f"{error.program}: {' / '.join(map(_code, places))}"
    yield ""


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
