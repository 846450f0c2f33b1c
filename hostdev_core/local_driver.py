"""LocalHostdevDriver: every member of the interface for a Linux host; a backend says what differs.

Each call imports what makes it, as it begins: a command makes one. `open_connection` has loaded them all.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

import attrs

from hostdev_core.backend import Caller, CheckedBackend, Lender
from hostdev_core.driver import HostdevDriver, OpenResult
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.state import HostdevState
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.assignment import Assignment, Returned
from hostdev_core.model.context import Context
from hostdev_core.model.device import Device, PCIDevice, USBDevice, UsedBy
from hostdev_core.model.domain import (
    Domain,
    Hostdev,
    PCIHostdev,
    PrepareFlags,
    USBHostdev,
    pci_hostdevs,
    usb_hostdevs,
)
from hostdev_core.model.plan import BackendStep, Plan

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.model.explanation import Explanation
    from hostdev_core.planning.request import Request


class LocalHostdevDriver(HostdevDriver):
    """Lends the devices of the machine it runs on.

    A backend sets `name`, `uri_schemes` and `stubs` (the stub drivers it accepts, the default
    first; `stub_modules` names the module of one that comes from a module of another name), and
    overrides what differs of the methods up to `arguments`. `takes_usb = False` refuses every USB
    hostdev: the hypervisor takes PCI devices only. A device on a VFIO driver is tried before it is
    lent, as a hypervisor would open its IOMMU group, unless `tries_vfio` is False.

    What a method is called about it is told in a Context, where it has a keyword `context`: the
    connection's private data, the domain, the hostdev. One without is called as it stands here.
    """

    stubs: ClassVar[tuple[str, ...]] = ()
    needs_iommu: ClassVar[bool] = True
    takes_usb: ClassVar[bool] = True
    tries_vfio: ClassVar[bool] = True
    stub_modules: ClassVar[Mapping[str, str]] = {}

    # What a backend may override.

    def open_backend(self, conn: "Connection") -> OpenResult:
        """Take (SUCCESS) or decline the connection; raise when it is this driver's but fails."""
        return OpenResult.SUCCESS

    def close_backend(self, conn: "Connection") -> None:
        """The connection ends."""

    def choose_stub(self, host: Host, device: PCIDevice) -> str:
        """The stub driver for a device, or the module that brings it."""
        return self.stubs[0]

    def accepts_stub(self, kernel_driver: str) -> bool:
        """Whether this kernel driver will do as a stub: a device that is on it already may stay there."""
        return kernel_driver in self.stubs

    def is_guest_stub(self, kernel_driver: str) -> bool:
        """Whether a guest gets a device from this stub, which `accepts_stub` has accepted.

        One that is not keeps a device from the host only: it is for detach.
        """
        return True

    def check_device(self, host: Host, device: PCIDevice) -> None:
        """Raise NotAssignableError for a device that cannot be lent; only look."""

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        """Which guest has the device now, in words; empty when none has.

        Only what the hypervisor itself can tell: who has its VFIO group or device open is found anyway.
        """
        return ()

    def extra_steps(self, host: Host, device: PCIDevice) -> Iterable[BackendStep]:
        """Steps of its own, done once the device is on the stub; only look here."""
        return ()

    def run_step(self, host: Host, step: BackendStep) -> None:
        """Do one of the extra steps; raise when it failed."""

    def undo_step(self, host: Host, step: BackendStep) -> None:
        """Undo one of the extra steps, done or not, once the device is off the stub."""

    def forget_step(self, host: Host, step: BackendStep) -> None:
        """Undo one of the extra steps, done or not, of a device that is gone.

        Another one may be at its address, which is nobody's: what the step did to it is undone, too,
        and nothing else. By default as `undo_step`.
        """
        self.undo_step(host, step)

    def leftover_steps(self, host: Host, device: PCIDevice) -> Iterable[BackendStep]:
        """The extra steps that are still done for a device that no record knows: its ledger was lost.

        They are undone, by `undo_step`, on its way to the host's own driver. Only look here; StateError,
        with the way to do it, for a device that another tool has to let go.
        """
        return ()

    def found_on(self, host: Host, device: PCIDevice) -> str | None:
        """The kernel driver that such a device was found on, where that is kept beside the ledger."""
        return None

    def node(self, host: Host, device: Device) -> str | None:
        """The device node that the hypervisor opens; None where it needs none."""
        node = host.buses[device.kind].node(device)
        return None if node is None else host.path(node)

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        """Words for the hypervisor that hand it the device.

        A USB device has in `asked` what it was named by: a port, ids or a number, for a hypervisor
        that follows either. `domain_arguments` has the words of a whole domain.
        """
        return ()

    # The interface.

    def open(self, conn: "Connection") -> OpenResult:
        return self.open_backend(conn)

    def close(self, conn: "Connection") -> None:
        self.close_backend(conn)

    def prepare_hostdevs(
        self, conn: "Connection", domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        from hostdev_core.lending.prepare import Prepare

        request = self._request(conn, domain, domain.hostdevs, flags)
        return Prepare(self._lender(conn), request).run()

    def prepare_pci_hostdevs(
        self,
        conn: "Connection",
        domain: Domain,
        hostdevs: Sequence[PCIHostdev],
        flags: PrepareFlags,
    ) -> tuple[Assignment, ...]:
        return self._prepare(conn, domain, pci_hostdevs(hostdevs), flags)

    def prepare_usb_hostdevs(
        self,
        conn: "Connection",
        domain: Domain,
        hostdevs: Sequence[USBHostdev],
        flags: PrepareFlags,
    ) -> tuple[Assignment, ...]:
        return self._prepare(conn, domain, usb_hostdevs(hostdevs), flags)

    def _prepare(
        self, conn: "Connection", domain: Domain, hostdevs: tuple[Hostdev, ...], flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        """By way of prepare_hostdevs, which a backend may have overridden."""
        return self.prepare_hostdevs(conn, attrs.evolve(domain, hostdevs=hostdevs), flags)

    def plan(self, conn: "Connection", domain: Domain, flags: PrepareFlags) -> Plan:
        from hostdev_core.planning.refusals import plan_or_refuse

        request = self._request(conn, domain, domain.hostdevs, flags)
        return plan_or_refuse(self._lender(conn), request)

    def explain(
        self, conn: "Connection", domain: Domain, flags: PrepareFlags
    ) -> "tuple[Explanation, ...]":
        from hostdev_core.facts.explain import explain

        return explain(self._lender(conn), self._request(conn, domain, domain.hostdevs, flags))

    def reattach_hostdevs(self, conn: "Connection", domain: Domain) -> tuple[str, ...]:
        return self._reattach(conn, domain, None)

    def reattach_pci_hostdevs(
        self, conn: "Connection", domain: Domain, hostdevs: Sequence[PCIHostdev]
    ) -> tuple[str, ...]:
        return self._reattach(conn, domain, pci_hostdevs(hostdevs))

    def reattach_usb_hostdevs(
        self, conn: "Connection", domain: Domain, hostdevs: Sequence[USBHostdev]
    ) -> tuple[str, ...]:
        return self._reattach(conn, domain, usb_hostdevs(hostdevs))

    def get_active_pci_hostdev_list(self, conn: "Connection") -> tuple[PCIDevice, ...]:
        return HostdevState(conn.host).active_pci

    def get_active_usb_hostdev_list(self, conn: "Connection") -> tuple[USBDevice, ...]:
        return HostdevState(conn.host).active_usb

    def get_inactive_pci_hostdev_list(self, conn: "Connection") -> tuple[PCIDevice, ...]:
        return HostdevState(conn.host).inactive_pci

    def get_domain_active_pci_hostdev_list(
        self, conn: "Connection", domain: Domain
    ) -> tuple[PCIDevice, ...]:
        found = HostdevState(conn.host).active_of("pci", self._owner(conn, domain))
        return cast("tuple[PCIDevice, ...]", found)

    def get_domain_active_usb_hostdev_list(
        self, conn: "Connection", domain: Domain
    ) -> tuple[USBDevice, ...]:
        found = HostdevState(conn.host).active_of("usb", self._owner(conn, domain))
        return cast("tuple[USBDevice, ...]", found)

    def list_devices(self, conn: "Connection") -> tuple[Device, ...]:
        seen = look(conn.host, tolerant=True, texts=True)
        return tuple(seen.devices)

    def detach_device(
        self, conn: "Connection", address: str, *, allow: frozenset[str] = frozenset()
    ) -> None:
        from hostdev_core.lending.prepare import Prepare
        from hostdev_core.planning.request import Request

        hostdev = PCIHostdev(address=address, allow=allow)
        Prepare(self._lender(conn), Request((hostdev,))).run()

    def reattach_device(
        self, conn: "Connection", address: str, *, to_host: bool = False
    ) -> Returned:
        if to_host:
            from hostdev_core.lending.to_host import send_to_host

            return send_to_host(self._lender(conn), PCIAddress.parse(address))
        from hostdev_core.lending.reattach import reattach_detached

        conn.host.check_permitted()
        return reattach_detached(self._lender(conn), "pci", str(PCIAddress.parse(address)))

    def reset_device(
        self, conn: "Connection", address: str, *, allow: frozenset[str] = frozenset()
    ) -> None:
        from hostdev_core.lending.reset import reset_device

        reset_device(self._lender(conn), PCIAddress.parse(address), allow)

    def _request(
        self, conn: "Connection", domain: Domain, hostdevs: tuple[Hostdev, ...], flags: PrepareFlags
    ) -> "Request":
        from hostdev_core.planning.request import Request

        return Request(hostdevs, domain, self._owner(conn, domain), flags)

    def _owner(self, conn: "Connection", domain: Domain) -> UsedBy:
        return UsedBy(domain.name, self.name, conn.uri, domain.uuid)

    def _reattach(
        self, conn: "Connection", domain: Domain, hostdevs: tuple[Hostdev, ...] | None
    ) -> Returned:
        from hostdev_core.lending.reattach import Reattach

        owner = self._owner(conn, domain)
        lender = self._lender(conn)
        return Reattach(lender, f"reattach {domain.name}", owner, domain, hostdevs).run()

    def _lender(self, conn: "Connection") -> Lender:
        """On whose behalf planning and lending work: all that they need of the connection."""
        return Lender(
            host=conn.host,
            hooks=conn.hooks,
            find_backend=partial(find_backend, conn),
            backend_names=tuple(row.name for row in conn.registry.driver_table),
            backend=CheckedBackend(self, conn.host, Context.of(conn, self)),
        )


def find_backend(conn: "Connection", name: str) -> CheckedBackend | None:
    """Find the local driver of a name, for the steps it left in the ledger; None when it is not loaded."""
    row = conn.registry.driver_table.find(name)
    if not isinstance(row, LocalHostdevDriver):
        return None
    return CheckedBackend(row, conn.host, Context.of(conn, row))


def caller_of(conn: "Connection") -> Caller:
    """On whose behalf devices are given back, whichever driver is in the slot."""
    return Caller(host=conn.host, hooks=conn.hooks, find_backend=partial(find_backend, conn))
