"""The context of a call to a backend: its connection, domain and hostdev."""

from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, signature
from typing import Any, Protocol

import attrs

from hostdev_core.model.device import UsedBy
from hostdev_core.model.domain import Domain, Hostdev


class Connection(Protocol):
    """A connection, as far as a context tells of it."""

    uri: str
    hostdev_private_data: Any

    @property
    def hostdev_driver(self) -> object: ...


@attrs.frozen(kw_only=True)
class Context:
    """Which connection, domain and hostdev a method of a backend is called about.

    Every method of a backend that has a keyword `context` gets it; one without is called as before.
    `uri` is the connection's, `private_data` its `hostdev_private_data`: None where another driver's
    connection does the work, as it may recover or give back what this one lent. `domain` is None for
    a detach; on the way back it has the name and UUID of the record alone. `hostdev` is None for a
    sibling of an IOMMU group, on the way back, and for the words of a whole domain.
    """

    uri: str = ""
    private_data: Any = None
    domain: Domain | None = None
    hostdev: Hostdev | None = None

    @classmethod
    def of(
        cls,
        conn: Connection,
        backend: object,
        domain: Domain | UsedBy | None = None,
        hostdev: Hostdev | None = None,
    ) -> "Context":
        """The context of a call that a connection makes to a backend; `domain` may be a borrower."""
        data = conn.hostdev_private_data if conn.hostdev_driver is backend else None
        if isinstance(domain, UsedBy):
            domain = Domain(domain.domain, uuid=domain.uuid)
        return cls(uri=conn.uri, private_data=data, domain=domain, hostdev=hostdev)


NO_CONTEXT = Context()


@lru_cache(maxsize=256)  # asked at each call of a backend; a signature does not change
def takes_context(function: Callable[..., object]) -> bool:
    """Whether the function behind a method of a backend has a keyword `context`."""
    try:
        found = signature(function).parameters.get("context")
    except (TypeError, ValueError):  # one in C may tell nothing of itself
        return False
    return found is not None and found.kind in {
        Parameter.KEYWORD_ONLY,
        Parameter.POSITIONAL_OR_KEYWORD,
    }
