"""The owner of a lent device: a domain of one driver."""

import re
from typing import NamedTuple

_UUID = re.compile(r"(?:urn:uuid:)?(\{)?([0-9a-f]{8}(-?)(?:[0-9a-f]{4}\3){3}[0-9a-f]{12})(?(1)\})")


class UsedBy(NamedTuple):
    """The borrower of a device: a domain of one driver.

    `uri` is where the domain was prepared and is for messages; it is no part of the identity.
    """

    domain: str
    driver: str
    uri: str
    uuid: str | None = None

    def is_same_owner(self, other: "UsedBy") -> bool:
        """Same driver and domain name, and the same UUID where both sides have one.

        UUIDs are the same in upper and lower case, with dashes, braces or `urn:uuid:` and without.
        """
        if (self.driver, self.domain) != (other.driver, other.domain):
            return False
        return self.uuid is None or other.uuid is None or _meant(self.uuid) == _meant(other.uuid)

    def __str__(self) -> str:
        uuid = f", UUID {self.uuid}" if self.uuid is not None else ""
        return f"domain {self.domain!r} of {self.driver} ({self.uri}{uuid})"


def is_uuid(text: str) -> bool:
    """Whether it is a UUID in one of the forms that people write."""
    return _UUID.fullmatch(text.strip().lower()) is not None


def _meant(text: str) -> str:
    """A UUID in its one form; what is none as it is."""
    match = _UUID.fullmatch(text.strip().lower())
    return match[2].replace("-", "") if match else text
