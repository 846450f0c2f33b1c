"""Who has a device."""

from typing import NamedTuple


class UsedBy(NamedTuple):
    """The borrower of a device: a domain of one driver.

    `uri` is where the domain was prepared and is for messages; it is no part of the identity.
    """

    domain: str
    driver: str
    uri: str
    uuid: str | None = None

    def is_same_owner(self, other: "UsedBy") -> bool:
        """Same driver and domain name, and the same UUID where both sides have one."""
        if (self.driver, self.domain) != (other.driver, other.domain):
            return False
        return self.uuid is None or other.uuid is None or self.uuid == other.uuid

    def __str__(self) -> str:
        uuid = f", UUID {self.uuid}" if self.uuid is not None else ""
        return f"domain {self.domain!r} of {self.driver} ({self.uri}{uuid})"
