"""Connections: a URI, the hostdev driver in its slot, and that driver's private data."""

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from hostdev_core import answers, driver_table
from hostdev_core.answers import Backend
from hostdev_core.assignment import Assignment
from hostdev_core.domain import Domain, PCIHostdev, USBHostdev, rule_names
from hostdev_core.drift import Drift
from hostdev_core.driver import HostdevDriver, PrepareFlags
from hostdev_core.errors import (
    ConnectionClosedError,
    InputError,
    ReadOnlyError,
)
from hostdev_core.host import Deadlines, Host, checked
from hostdev_core.local_driver import LocalHostdevDriver
from hostdev_core.pci import PCIDevice
from hostdev_core.plan import Plan
from hostdev_core.record import Record
from hostdev_core.recovery import forget_device, recover_all
from hostdev_core.registry import Hooks, Registry
from hostdev_core.state import HostdevState
from hostdev_core.uri import scheme_of, unknown_scheme, which_uri
from hostdev_core.usb import USBDevice
from hostdev_core.worker import run_in_worker

T = TypeVar("T")


def open_connection(
    uri: str | None = None,
    *,
    host: Host | None = None,
    registry: Registry | None = None,
    read_only: bool = False,
    deadlines: Deadlines | None = None,
    worker: bool = False,
) -> "Connection":
    """Open a connection to one hypervisor's driver on one host.

    Without `uri`: `HOSTDEV_DEFAULT_URI` of the environment, then the first default that a row of
    the driver table offers for the host. Without `registry`: all installed plugins. `read_only`
    refuses every change, and neither creates nor recovers anything. With `worker`, each change is
    carried out by a process of its own, which goes on when this one is left or killed; without, this
    process cannot end while the kernel keeps one of its threads.

    Raises InvalidURIError, NoDriverError, or what the driver raised: the slot stays empty then.
    """
    registry = registry if registry is not None else Registry.from_entry_points()
    meant, named = which_uri(uri, registry, host)
    scheme = scheme_of(meant, named)
    rows = [row for row in registry.driver_table if scheme in row.uri_schemes]
    if not rows:
        raise unknown_scheme(named, scheme, registry)
    brought = next((b for row in rows if (b := _host_for(row, meant)) is not None), None)
    if brought is not None and host is not None:
        raise InputError(f"{named} brings its own host; give either the URI or host=")
    machine = brought or host or Host(deadlines=deadlines)
    if deadlines is not None:
        machine.deadlines = checked(deadlines)
    return Connection(meant, machine, registry, read_only=read_only, worker=worker)


def _host_for(row: HostdevDriver, uri: str) -> Host | None:
    return answers.ask(row, "host_for", lambda: row.host_for(uri))


class Connection:
    """An open connection; made by `open_connection`, closed by `close` or a `with` block.

    `hostdev_driver` is the driver in the slot, `hostdev_private_data` is that driver's own. Several
    threads may use one connection. Closing releases no device: devices belong to domains.
    """

    def __init__(
        self,
        uri: str,
        host: Host,
        registry: Registry,
        *,
        read_only: bool = False,
        worker: bool = False,
    ) -> None:
        self.uri = uri
        self.host = host
        self.registry = registry
        self.read_only = read_only
        self.worker = worker
        self.hostdev_private_data: Any = None
        self.hostdev_driver: HostdevDriver | None = None
        self.hooks: Hooks
        self._open()

    def _open(self) -> None:
        driver = self.registry.driver_table.open(self)
        self.hooks = self.registry.hooks_for(driver)
        self.hostdev_driver = driver
        try:
            self.hooks.connection_opened(self)
        except BaseException:
            self.hostdev_driver = None
            driver_table.close(driver, self)
            raise

    @property
    def is_closed(self) -> bool:
        """Whether the slot is empty."""
        return self.hostdev_driver is None

    @property
    def state(self) -> HostdevState:
        """The host's in-use state, whoever made it."""
        return HostdevState(self.host)

    def close(self) -> None:
        """Empty the slot; a second time is harmless."""
        driver, self.hostdev_driver = self.hostdev_driver, None
        if driver is not None:
            try:
                self.hooks.connection_closing(self)
            finally:
                driver_table.close(driver, self)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.hostdev_driver.name if self.hostdev_driver else "closed"
        return f"<Connection {self.uri} ({name})>"

    def backend(self, name: str) -> Backend | None:
        """The local driver of a name, for the steps it left in the ledger."""
        row = self.registry.driver_table.find(name)
        return row if isinstance(row, LocalHostdevDriver) else None

    def prepare_hostdevs(
        self, domain: Domain | str, flags: PrepareFlags = PrepareFlags.NONE
    ) -> tuple[Assignment, ...]:
        """Lend all of a domain's hostdevs, or none.

        Returns an Assignment for each, in their order. Raises DeviceInUseError, NotAssignableError,
        DeviceNotFoundError or VetoError with nothing changed; KernelError after the undo;
        KernelTimeoutError when the kernel does not return: the device is stuck then and goes home
        when the kernel does.
        """
        return self._change(lambda d: d.prepare_hostdevs(self, Domain.of(domain), flags))

    def prepare_pci_hostdevs(
        self,
        domain: Domain | str,
        hostdevs: Sequence[PCIHostdev],
        flags: PrepareFlags = PrepareFlags.NONE,
    ) -> tuple[Assignment, ...]:
        """The same for these PCI hostdevs of the domain."""
        return self._change(
            lambda d: d.prepare_pci_hostdevs(self, Domain.of(domain), hostdevs, flags)
        )

    def prepare_usb_hostdevs(
        self,
        domain: Domain | str,
        hostdevs: Sequence[USBHostdev],
        flags: PrepareFlags = PrepareFlags.NONE,
    ) -> tuple[Assignment, ...]:
        """The same for these USB hostdevs of the domain."""
        return self._change(
            lambda d: d.prepare_usb_hostdevs(self, Domain.of(domain), hostdevs, flags)
        )

    def plan(self, domain: Domain | str, flags: PrepareFlags = PrepareFlags.NONE) -> Plan:
        """What prepare_hostdevs would do, or the refusal it would raise; nothing is changed."""
        self.registry.check_loaded()
        return self._driver().plan(self, Domain.of(domain), flags)

    def reattach_hostdevs(self, domain: Domain | str) -> tuple[str, ...]:
        """Give back all that the domain holds under this driver; the addresses given back.

        Nothing held is no error. Every device is tried; ReattachError has one error for each that
        is not home.
        """
        return self._change(lambda d: d.reattach_hostdevs(self, Domain.of(domain)))

    def reattach_pci_hostdevs(
        self, domain: Domain | str, hostdevs: Sequence[PCIHostdev]
    ) -> tuple[str, ...]:
        """The same for these of its PCI devices."""
        return self._change(lambda d: d.reattach_pci_hostdevs(self, Domain.of(domain), hostdevs))

    def reattach_usb_hostdevs(
        self, domain: Domain | str, hostdevs: Sequence[USBHostdev]
    ) -> tuple[str, ...]:
        """The same for these of its USB devices."""
        return self._change(lambda d: d.reattach_usb_hostdevs(self, Domain.of(domain), hostdevs))

    def get_active_pci_hostdev_list(self) -> tuple[PCIDevice, ...]:
        """The PCI devices that any domain of any hypervisor has, with `used_by`."""
        return self._driver().get_active_pci_hostdev_list(self)

    def get_active_usb_hostdev_list(self) -> tuple[USBDevice, ...]:
        """The USB devices that any domain of any hypervisor has, with `used_by`."""
        return self._driver().get_active_usb_hostdev_list(self)

    def get_inactive_pci_hostdev_list(self) -> tuple[PCIDevice, ...]:
        """The PCI devices that were detached and that nobody has."""
        return self._driver().get_inactive_pci_hostdev_list(self)

    def get_domain_active_pci_hostdev_list(self, domain: Domain | str) -> tuple[PCIDevice, ...]:
        """The PCI devices of one domain of this driver."""
        return self._driver().get_domain_active_pci_hostdev_list(self, Domain.of(domain))

    def get_domain_active_usb_hostdev_list(self, domain: Domain | str) -> tuple[USBDevice, ...]:
        """The USB devices of one domain of this driver."""
        return self._driver().get_domain_active_usb_hostdev_list(self, Domain.of(domain))

    def list_devices(self) -> tuple[PCIDevice | USBDevice, ...]:
        """All devices of the host, and whose they are."""
        return self._driver().list_devices(self)

    def detach_device(self, address: str, *, allow: Iterable[str] = ()) -> None:
        """Put one PCI device onto its stub and the inactive list; twice is success."""
        self._change(lambda d: d.detach_device(self, address, allow=rule_names(allow)))

    def reattach_device(self, address: str) -> None:
        """Give one detached PCI device back as it was found."""
        self._change(lambda d: d.reattach_device(self, address))

    def reset_device(self, address: str, *, allow: Iterable[str] = ()) -> None:
        """Reset one PCI device that is on a stub and that nobody has."""
        self._change(lambda d: d.reset_device(self, address, allow=rule_names(allow)))

    def forget_device(self, address: str) -> Record:
        """Delete the record of one device, which stays as it is now; the record that was there.

        Raises DeviceInUseError while a living operation works on it; ReattachError, after the record
        was deleted, when what stayed on its stub for this device's IOMMU group alone is stuck.
        """
        return self._change(lambda d: forget_device(self, address))

    def recover(self) -> tuple[str, ...]:
        """Undo or finish everything that dead operations left; the addresses that are home.

        Raises ReattachError for what is not.
        """
        return self._change(lambda d: recover_all(self).raised())

    def reload(self) -> tuple[Drift, ...]:
        """What is lent and gone, replaced or rebound behind our back."""
        self._driver()
        return self.state.reload()

    def _driver(self) -> HostdevDriver:
        if self.hostdev_driver is None:
            raise ConnectionClosedError(f"the connection to {self.uri} is closed; open another one")
        return self.hostdev_driver

    def _change(self, call: Callable[[HostdevDriver], T]) -> T:
        driver = self._driver()
        if self.read_only:
            raise ReadOnlyError(
                f"the connection to {self.uri} is read-only; open it without read_only"
            )
        self.registry.check_loaded()
        if self.worker:
            return run_in_worker(lambda: call(driver))
        return call(driver)
