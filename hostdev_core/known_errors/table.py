"""The known messages, read from the TOML file of each program."""

import tomllib
from pathlib import Path
from typing import Any

from hostdev_core.known_errors.entry import KnownError, Symptom, Wording

PROGRAMS = ("qemu", "libvirt", "libxl", "cloud_hypervisor", "linux")


def known_errors() -> tuple[KnownError, ...]:
    """Read all known messages, in the order of the files; KeyError for a part that is missing."""
    folder = Path(__file__).parent
    return tuple(
        _error(document["program"], entry)
        for name in PROGRAMS
        for document in [tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))]
        for entry in document["error"]
    )


def _error(program: str, entry: dict[str, Any]) -> KnownError:
    return KnownError(
        name=entry["name"],
        program=program,
        symptom=Symptom[entry["symptom"].upper()],
        cause=_sentences(entry["cause"]),
        remedy=_sentences(entry["remedy"]),
        commands=tuple(entry["commands"]),
        wordings=tuple(Wording(**wording) for wording in entry["wording"]),
    )


def _sentences(text: str) -> str:
    """Put a text that is wrapped in the file on one line."""
    return " ".join(text.split())
