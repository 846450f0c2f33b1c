"""A refusal: a rule that speaks against a device, with the facts behind it."""

from typing import NamedTuple


class Refusal(NamedTuple):
    """A plugin's no: `rule` is the name that `allow` passes, `device` an address.

    `reason` is for people; `evidence` are the facts behind it, one a line.
    """

    rule: str
    device: str
    reason: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        chain = f" ({'; '.join(self.evidence)})" if self.evidence else ""
        return f"{self.device}: {self.reason}{chain} [{self.rule}]"
