"""On whose behalf devices are lent and given back: what that needs of a connection, as a value."""

from collections.abc import Callable

import attrs

from hostdev_core.backend import CheckedBackend
from hostdev_core.host import Host
from hostdev_core.registry.hooks import Hooks


@attrs.frozen(kw_only=True)
class Caller:
    """The host, the hooks of the connection, and the backends whose steps its ledger may hold.

    Enough to give back: a record names the backend that lent its device, whichever driver is in the slot.
    `find_backend` answers None for one that is not loaded; `backend_names` are those that are.
    """

    host: Host
    hooks: Hooks
    find_backend: Callable[[str], CheckedBackend | None]
    backend_names: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Lender(Caller):
    """The same with the backend in the slot, which lends."""

    backend: CheckedBackend
