"""The hostdev driver interface, member for member the one of libvirt's 2013 draft.

A driver of the driver table. It is stateless: what belongs to a connection is in
`conn.hostdev_private_data`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from hostdev_core import checks
from hostdev_core.errors import UnsupportedError
from hostdev_core.model.domain import PrepareFlags
from hostdev_core.runtime.all_or_nothing import all_or_nothing

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.host import Host
    from hostdev_core.model.assignment import Assignment
    from hostdev_core.model.device import Device, PCIDevice, USBDevice
    from hostdev_core.model.domain import Domain, PCIHostdev, USBHostdev
    from hostdev_core.model.explanation import Explanation
    from hostdev_core.model.plan import Plan


class OpenResult(Enum):
    """How a driver answers to being opened; an exception says "mine, but it failed"."""

    SUCCESS = auto()
    DECLINED = auto()


CHANGES = (
    *("prepare_hostdevs", "prepare_pci_hostdevs", "prepare_usb_hostdevs"),
    *("reattach_hostdevs", "reattach_pci_hostdevs", "reattach_usb_hostdevs"),
    *("detach_device", "reattach_device", "reset_device"),
)


READS = (
    *(
        "get_active_pci_hostdev_list",
        "get_active_usb_hostdev_list",
        "get_inactive_pci_hostdev_list",
    ),
    *("get_domain_active_pci_hostdev_list", "get_domain_active_usb_hostdev_list"),
    *("list_devices", "plan"),
)


def reattach_one(
    driver: "HostdevDriver", conn: "Connection", address: str, *, to_host: bool
) -> "tuple[str, ...]":
    """Call `reattach_device` of any driver, also of one written before `to_host`; returns its answer."""
    if not to_host:
        return driver.reattach_device(conn, address) or (address,)
    from inspect import Parameter, signature

    known = signature(driver.reattach_device).parameters
    if "to_host" not in known and all(p.kind is not Parameter.VAR_KEYWORD for p in known.values()):
        raise UnsupportedError(
            f"driver {driver.name} does not support reattach_device with to_host", device=address
        )
    return driver.reattach_device(conn, address, to_host=True) or (address,)


class HostdevDriver(ABC):
    """One hypervisor's way of lending host devices.

    `name` is unique in a registry; `uri_schemes` are the URI schemes it is opened for, `uris` those
    that it takes, or examples of them, for the message when it declines another one. Each member
    that changes something is refused on a closed or read-only connection, whoever calls it and
    whoever wrote it.
    """

    name: ClassVar[str]
    uri_schemes: ClassVar[tuple[str, ...]]
    uris: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        for name in CHANGES:
            method = getattr(cls, name)
            if not hasattr(method, "__asks__") and not hasattr(method, "__isabstractmethod__"):
                asks = _asking(method if _is_ours(cls) else _checked(name, method))
                setattr(cls, name, asks)
        for name in READS:
            method = vars(cls).get(name)
            if method is not None and not _is_ours(cls):
                setattr(cls, name, _checked(name, method))

    @abstractmethod
    def open(self, conn: "Connection") -> OpenResult:
        """Take or decline a connection, judging by `conn.uri` and `conn.host`."""

    @abstractmethod
    def close(self, conn: "Connection") -> None:
        """The connection ends; devices stay with their domains."""

    @abstractmethod
    def prepare_hostdevs(
        self, conn: "Connection", domain: "Domain", flags: PrepareFlags
    ) -> "tuple[Assignment, ...]":
        """Lend all of a domain's hostdevs or none; an Assignment each, in their order."""

    @abstractmethod
    def prepare_pci_hostdevs(
        self,
        conn: "Connection",
        domain: "Domain",
        hostdevs: "Sequence[PCIHostdev]",
        flags: PrepareFlags,
    ) -> "tuple[Assignment, ...]":
        """The same over these PCI hostdevs."""

    @abstractmethod
    def prepare_usb_hostdevs(
        self,
        conn: "Connection",
        domain: "Domain",
        hostdevs: "Sequence[USBHostdev]",
        flags: PrepareFlags,
    ) -> "tuple[Assignment, ...]":
        """The same over these USB hostdevs."""

    @abstractmethod
    def reattach_hostdevs(self, conn: "Connection", domain: "Domain") -> tuple[str, ...]:
        """Give back all that the domain holds, by the ledger; the addresses given back."""

    @abstractmethod
    def reattach_pci_hostdevs(
        self, conn: "Connection", domain: "Domain", hostdevs: "Sequence[PCIHostdev]"
    ) -> tuple[str, ...]:
        """Give back these of its PCI devices."""

    @abstractmethod
    def reattach_usb_hostdevs(
        self, conn: "Connection", domain: "Domain", hostdevs: "Sequence[USBHostdev]"
    ) -> tuple[str, ...]:
        """Give back these of its USB devices."""

    @abstractmethod
    def get_active_pci_hostdev_list(self, conn: "Connection") -> "tuple[PCIDevice, ...]":
        """The PCI devices that any domain of any hypervisor of this host has."""

    @abstractmethod
    def get_active_usb_hostdev_list(self, conn: "Connection") -> "tuple[USBDevice, ...]":
        """The USB devices that any domain of any hypervisor of this host has."""

    @abstractmethod
    def get_inactive_pci_hostdev_list(self, conn: "Connection") -> "tuple[PCIDevice, ...]":
        """The PCI devices on the inactive list: detached, and lent to no domain."""

    @abstractmethod
    def get_domain_active_pci_hostdev_list(
        self, conn: "Connection", domain: "Domain"
    ) -> "tuple[PCIDevice, ...]":
        """The PCI devices that this domain of this driver has."""

    @abstractmethod
    def get_domain_active_usb_hostdev_list(
        self, conn: "Connection", domain: "Domain"
    ) -> "tuple[USBDevice, ...]":
        """The USB devices that this domain of this driver has."""

    def plan(self, conn: "Connection", domain: "Domain", flags: PrepareFlags) -> "Plan":
        """Return the plan of prepare_hostdevs; nothing is changed."""
        raise self._unsupported("plan")

    def explain(
        self, conn: "Connection", domain: "Domain", flags: PrepareFlags
    ) -> "tuple[Explanation, ...]":
        """Explain each hostdev of a domain, by itself: why a prepare would refuse it; nothing is changed."""
        raise self._unsupported("explain")

    def detach_device(
        self, conn: "Connection", address: str, *, allow: frozenset[str] = frozenset()
    ) -> None:
        """Take one PCI device onto the inactive list; twice is success.

        `allow` names the rules whose refusal is passed, as a hostdev's does.
        """
        raise self._unsupported("detach_device", address)

    def reattach_device(
        self, conn: "Connection", address: str, *, to_host: bool = False
    ) -> "tuple[str, ...] | None":
        """Give one detached PCI device back as it was found; its address.

        `to_host`: one on a stub that no record knows goes to the host's own driver for it. Asked for
        only of a driver that has this keyword.
        """
        raise self._unsupported("reattach_device", address)

    def reset_device(
        self, conn: "Connection", address: str, *, allow: frozenset[str] = frozenset()
    ) -> None:
        """Reset one PCI device that is on a stub and not in use; `allow` as above."""
        raise self._unsupported("reset_device", address)

    def list_devices(self, conn: "Connection") -> "tuple[Device, ...]":
        """All devices of the host, and whose they are."""
        raise self._unsupported("list_devices")

    def domain_arguments(self, assignments: "Sequence[Assignment]") -> Sequence[str]:
        """Words for the hypervisor that hand a domain all of these, in its own form.

        By default each one's `arguments`, one after the other; a hypervisor that wants one list for
        all devices gets it here.
        """
        return tuple(word for assignment in assignments for word in assignment.arguments)

    def default_uri(self, host: "Host") -> str | None:
        """The URI to open where none is given; None leaves it to the next driver."""
        return None

    def host_for(self, uri: str) -> "Host | None":
        """The host that a URI brings along; None: the one that the caller is on."""
        return None

    def _unsupported(self, call: str, device: str = "") -> UnsupportedError:
        return UnsupportedError(f"driver {self.name} does not support {call}", device=device)


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same member of a driver, which asks the connection whether anything may be changed.

    When it raises, nothing that was lent in it stays lent.
    """

    @wraps(method)
    def asks(self: HostdevDriver, conn: "Connection", *arguments: Any, **more: Any) -> Any:
        with conn.changing(), all_or_nothing(conn):
            return method(self, conn, *arguments, **more)

    asks.__asks__ = True  # type: ignore[attr-defined]
    return asks


def _is_ours(cls: type[HostdevDriver]) -> bool:
    return cls.__module__.partition(".")[0] == "hostdev_core"


def _checked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The same member of somebody else's driver: what it raises and answers is of a known form."""

    @wraps(method)
    def checked(self: HostdevDriver, conn: "Connection", *arguments: Any, **more: Any) -> Any:
        answer = checks.call_driver(self, name, lambda: method(self, conn, *arguments, **more))
        if name.startswith("prepare"):
            checks.check_lent(self, name, answer, more.get("domain", *arguments[:1]))
        elif name.startswith("reattach") and (name != "reattach_device" or answer is not None):
            checks.check_returned(self, name, answer)
        elif name in READS:
            checks.check_seen(self, name, answer)
        return answer

    return checked
