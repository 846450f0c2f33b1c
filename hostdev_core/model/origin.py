"""Where a plugin comes from."""

from typing import NamedTuple


class Origin(NamedTuple):
    """Where a plugin comes from: distribution ("audit 1.0"), entry point's value, file of its module."""

    distribution: str | None
    value: str
    file: str | None

    def __str__(self) -> str:
        return ", ".join(
            part for part in (self.distribution, f"entry point {self.value}", self.file) if part
        )
