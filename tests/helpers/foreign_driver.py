"""A driver of the draft's interface alone, and a local one that is made of it."""

from typing import Any

from hostdev_core import (
    Assignment,
    Connection,
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    OpenResult,
    PrepareFlags,
)


class Foreign(HostdevDriver):
    """Not a LocalHostdevDriver: all of its members are its author's."""

    name = "foreign"
    uri_schemes = ("foreign",)
    done: list[str]

    def __init__(self) -> None:
        self.done = []

    def open(self, conn: Connection) -> OpenResult:
        return OpenResult.SUCCESS

    def close(self, conn: Connection) -> None:
        """Nothing to close."""

    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        self.done.append("prepare")
        return ()

    def prepare_pci_hostdevs(
        self, conn: Connection, domain: Domain, hostdevs: Any, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        return self.prepare_hostdevs(conn, domain, flags)

    prepare_usb_hostdevs = prepare_pci_hostdevs

    def reattach_hostdevs(self, conn: Connection, domain: Domain) -> tuple[str, ...]:
        self.done.append("reattach")
        return ("0000:01:00.0",)

    def reattach_pci_hostdevs(
        self, conn: Connection, domain: Domain, hostdevs: Any
    ) -> tuple[str, ...]:
        return self.reattach_hostdevs(conn, domain)

    reattach_usb_hostdevs = reattach_pci_hostdevs

    def _none(self, conn: Connection, domain: Domain | None = None) -> tuple[Any, ...]:
        return ()

    get_active_pci_hostdev_list = get_active_usb_hostdev_list = _none
    get_inactive_pci_hostdev_list = _none
    get_domain_active_pci_hostdev_list = get_domain_active_usb_hostdev_list = _none


class Quick:
    """A mixin: no driver itself."""

    def reset_device(self, conn: Connection, address: str, **words: Any) -> None:
        conn.host.sysfs.write(f"bus/pci/devices/{address}/reset", "1")


class MixedDriver(Quick, LocalHostdevDriver):  # type: ignore[misc]
    name = "mixed"
    uri_schemes = ("mixed",)
    stubs = ("vfio-pci",)
