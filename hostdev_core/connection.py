"""Connections: a URI, the hostdev driver in its slot, and that driver's private data."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hostdev_core.calls import Calls, call, change, check_may_change
from hostdev_core.checks import domain_arguments
from hostdev_core.driver import HostdevDriver, reattach_one
from hostdev_core.host import Host
from hostdev_core.inventory.drift import Drift
from hostdev_core.inventory.state import HostdevState
from hostdev_core.local_driver import LocalHostdevDriver as Backend
from hostdev_core.local_driver import caller_of
from hostdev_core.model.assignment import Assignment, Returned
from hostdev_core.model.context import Context
from hostdev_core.model.device import Device, PCIDevice, USBDevice
from hostdev_core.model.domain import (
    Domain,
    PrepareFlags,
    WantedOnes,
    pci_hostdevs,
    rule_names,
    usb_hostdevs,
)
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Record
from hostdev_core.registry import driver_table
from hostdev_core.registry.hooks import Hooks
from hostdev_core.registry.registry import Registry
from hostdev_core.registry.state_drivers import close_quietly, recover_and_reload

if TYPE_CHECKING:
    from hostdev_core.model.explanation import Explanation
    from hostdev_core.watching.watch import Watch


class Connection:
    """An open connection; made by `open_connection`, closed by `close` or a `with` block.

    `hostdev_driver` is the driver in the slot, `hostdev_private_data` is that driver's own. Several
    threads may use one connection. Closing releases no device: devices belong to domains. A process
    that is forked may use it, too, and closes nothing of it.
    """

    def __init__(
        self,
        uri: str,
        host: Host,
        registry: Registry,
        *,
        read_only: bool = False,
        worker: bool = False,
        closes_registry: bool = False,
        named: str | None = None,
    ) -> None:
        self.uri = uri
        self.host = host
        self.registry = registry
        self.read_only = read_only
        self.worker = worker
        self._closes_registry = closes_registry
        self._named = named or repr(uri)
        self.hostdev_private_data: Any = None
        self.hostdev_driver: HostdevDriver | None = None
        self.hooks: Hooks
        self._calls = Calls(uri, self._end)
        self._open()

    def _open(self) -> None:
        row = self.registry.driver_table.first(self.uri)
        if row is not None and not self.read_only:
            self.registry.initialize(self.host, row)
        driver = self.registry.driver_table.open(self, self._named)
        self.hooks = self.registry.hooks_for(driver, self)
        self.hostdev_driver = driver
        try:
            self.hooks.connection_opened()
        except BaseException:
            self.hostdev_driver = None
            driver_table.close(driver, self)
            raise

    @property
    def is_closed(self) -> bool:
        """Whether it was closed; what was under way then ends all the same."""
        return self._calls.is_closed

    @property
    def state(self) -> HostdevState:
        """The host's in-use state, of all processes and drivers; read-only if the connection is."""
        return HostdevState(self.host, changing=self.changing)

    @contextmanager
    def changing(self) -> Generator[None]:
        """A change of the host is under way; ConnectionClosedError or ReadOnlyError where none may be.

        Every member of a driver that changes something is in one, also when the driver is called
        directly.
        """
        with self._calls.one():
            check_may_change(self)
            yield

    def close(self) -> None:
        """Begin no more calls, and empty the slot; a second time is harmless.

        Nothing is waited for: while calls are under way, in other threads or as a hook of one closes,
        the last of them empties the slot when it has ended, its hooks too.
        """
        self._calls.close()

    def _end(self) -> None:
        driver, self.hostdev_driver = self.hostdev_driver, None
        if driver is not None:
            try:
                self.hooks.connection_closing()
            finally:
                driver_table.close(driver, self)
                if self._closes_registry:
                    close_quietly(self.registry)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        driver = None if self.is_closed else self.hostdev_driver
        return f"<Connection {self.uri} ({driver.name if driver else 'closed'})>"

    def backend(self, name: str) -> Backend | None:
        """The local driver of a name, for the steps it left in the ledger."""
        row = self.registry.driver_table.find(name)
        return row if isinstance(row, Backend) else None

    @change
    def prepare_hostdevs(
        self, domain: Domain | str, flags: PrepareFlags = PrepareFlags.NONE
    ) -> tuple[Assignment, ...]:
        """Lend all of a domain's hostdevs, or none.

        Returns an Assignment for each, in their order. Raises DeviceInUseError, NotAssignableError,
        DeviceNotFoundError or VetoError with nothing changed; KernelError after the undo; KernelTimeoutError
        when the kernel does not return: the device is stuck then, and is given back when the kernel does.
        """
        return self._driver().prepare_hostdevs(self, Domain.of(domain), flags)

    @change
    def prepare_pci_hostdevs(
        self, domain: Domain | str, hostdevs: WantedOnes, flags: PrepareFlags = PrepareFlags.NONE
    ) -> tuple[Assignment, ...]:
        """The same for the PCI devices among these, by hostdevs, texts or devices that were listed."""
        pci = pci_hostdevs(hostdevs)
        return self._driver().prepare_pci_hostdevs(self, Domain.of(domain), pci, flags)

    @change
    def prepare_usb_hostdevs(
        self, domain: Domain | str, hostdevs: WantedOnes, flags: PrepareFlags = PrepareFlags.NONE
    ) -> tuple[Assignment, ...]:
        """The same for the USB devices among these."""
        usb = usb_hostdevs(hostdevs)
        return self._driver().prepare_usb_hostdevs(self, Domain.of(domain), usb, flags)

    @call
    def arguments(self, assignments: Iterable[Assignment]) -> tuple[str, ...]:
        """Words for the hypervisor, on its command line or in its configuration, for all of these devices.

        It may want one list for all of them: the `arguments` of several assignments cannot always stand
        one after the other. Those of a later prepare are the words for what it lent.
        """
        driver, lent = self._driver(), tuple(assignments)
        owners = {each.device.used_by for each in lent if each.device is not None}
        context = Context.of(self, driver, owners.pop() if len(owners) == 1 else None)
        return domain_arguments(driver, lent, context)

    @call
    def plan(self, domain: Domain | str, flags: PrepareFlags = PrepareFlags.NONE) -> Plan:
        """Return the plan of prepare_hostdevs, or raise its first refusal, whose notes have the others."""
        self.registry.check_loaded()
        return self._driver().plan(self, Domain.of(domain), flags)

    @call
    def explain(
        self, domain: Domain | str, flags: PrepareFlags = PrepareFlags.NONE
    ) -> "tuple[Explanation, ...]":
        """Explain each of a domain's hostdevs, as if asked for alone: why a prepare would refuse it."""
        self.registry.check_loaded()
        return self._driver().explain(self, Domain.of(domain), flags)

    @change
    def reattach_hostdevs(self, domain: Domain | str) -> Returned:
        """Give back all that the domain holds under this driver; returns the addresses given back.

        Nothing held is no error. Every device is tried; ReattachError has one error for each that could
        not be given back, and the addresses of the others in `returned`.
        """
        return Returned.of(self._driver().reattach_hostdevs(self, Domain.of(domain)))

    @change
    def reattach_pci_hostdevs(self, domain: Domain | str, hostdevs: WantedOnes) -> Returned:
        """The same for the PCI devices among these."""
        pci = pci_hostdevs(hostdevs)
        return Returned.of(self._driver().reattach_pci_hostdevs(self, Domain.of(domain), pci))

    @change
    def reattach_usb_hostdevs(self, domain: Domain | str, hostdevs: WantedOnes) -> Returned:
        """The same for the USB devices among these, by their ports, numbers, ids or serials when lent.

        NotAssignableError, with nothing changed, when several of the domain's match one of them.
        """
        usb = usb_hostdevs(hostdevs)
        return Returned.of(self._driver().reattach_usb_hostdevs(self, Domain.of(domain), usb))

    @call
    def get_active_pci_hostdev_list(self) -> tuple[PCIDevice, ...]:
        """The PCI devices that any domain of any hypervisor has, with `used_by`."""
        return self._driver().get_active_pci_hostdev_list(self)

    @call
    def get_active_usb_hostdev_list(self) -> tuple[USBDevice, ...]:
        """The USB devices that any domain of any hypervisor has, with `used_by`."""
        return self._driver().get_active_usb_hostdev_list(self)

    @call
    def get_inactive_pci_hostdev_list(self) -> tuple[PCIDevice, ...]:
        """The PCI devices on the inactive list: detached, and lent to no domain."""
        return self._driver().get_inactive_pci_hostdev_list(self)

    @call
    def get_domain_active_pci_hostdev_list(self, domain: Domain | str) -> tuple[PCIDevice, ...]:
        """The PCI devices of one domain of this driver."""
        return self._driver().get_domain_active_pci_hostdev_list(self, Domain.of(domain))

    @call
    def get_domain_active_usb_hostdev_list(self, domain: Domain | str) -> tuple[USBDevice, ...]:
        """The USB devices of one domain of this driver."""
        return self._driver().get_domain_active_usb_hostdev_list(self, Domain.of(domain))

    @call
    def list_devices(self) -> tuple[Device, ...]:
        """All devices of the host, and whose they are."""
        return self._driver().list_devices(self)

    @change
    def detach_device(self, address: str, *, allow: Iterable[str] = ()) -> None:
        """Put one PCI device onto its stub and the inactive list; twice is success."""
        self._driver().detach_device(self, address, allow=rule_names(allow))

    @change
    def reattach_device(self, address: str, *, to_host: bool = False) -> Returned:
        """Give one detached PCI device back as found; `to_host`: one on a stub without a record."""
        return Returned.of(reattach_one(self._driver(), self, address, to_host=to_host))

    @change
    def reset_device(self, address: str, *, allow: Iterable[str] = ()) -> None:
        """Reset one PCI device that is on a stub and not in use."""
        self._driver().reset_device(self, address, allow=rule_names(allow))

    @change
    def forget_device(self, address: str) -> Record:
        """Delete the record of one device, which stays as it is now; returns the deleted record.

        DeviceInUseError while a living operation works on it; ReattachError, after the record was deleted,
        when a sibling that stayed on its stub for this device alone is stuck.
        """
        from hostdev_core.lending.recovery import forget_device

        return forget_device(caller_of(self), address)

    @call
    def recover(self) -> Returned:
        """Undo or finish what dead operations left; the addresses given back. ReattachError for the rest."""
        return recover_and_reload(self._recover, lambda: self.registry.reload_brought(self.host))

    @change
    def _recover(self) -> Returned:
        from hostdev_core.lending.recovery import recover_all

        return recover_all(caller_of(self))

    @call
    def reload(self) -> tuple[Drift, ...]:
        """Find lent devices that are gone, replaced or rebound; reload the state drivers of plugins."""
        return self.registry.reload(self.host)

    @call
    def watch(self, *, state: bool = False) -> "Watch":
        """Follow what happens to devices from now on; `state`: first where things stand. As `Watch`."""
        from hostdev_core.watching.watch import Watch  # here: few programs watch

        return self._calls.watched(Watch(self.host, state=state))

    def _driver(self) -> HostdevDriver:
        if self.hostdev_driver is None:
            raise self._calls.closed()
        return self.hostdev_driver
