"""Where tests run: the host that a URI wants, and what is given back on a real one."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hostdev_core import (
    Connection,
    Device,
    Domain,
    Host,
    HostdevDriver,
    HostdevError,
    NoDriverError,
    PCIDevice,
    PCIHostdev,
    ReattachError,
    Registry,
    USBDevice,
    USBHostdev,
    hookimpl,
    is_vfio_driver,
    open_connection,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost, make_sample
from hostdev_core.simulated.kernel.machine import OWN
from hostdev_core.simulated.opened import OpenedMachine

ON_A_REAL_HOST = "pass --hostdev-real-host as well, and its devices are really taken"
KERNEL_DRIVERS = {driver.name for driver in OWN}
Borrower = tuple[str, str | None]  # the URI, the domain (None: detached)


def wants_dom0(driver: HostdevDriver | type[HostdevDriver]) -> bool:
    """Whether a driver lends devices by way of pciback, which only Xen's control domain has."""
    return "pciback" in getattr(driver, "stubs", ())


def add_stubs(host: SimulatedHost, *drivers: HostdevDriver | type[HostdevDriver]) -> None:
    """Let a simulated kernel have the stub drivers of these that it lacks, in modules yet to load.

    A device on one may be in an IOMMU group that a guest has (driver_managed_dma in the kernel).
    """
    for driver in drivers:
        modules: Mapping[str, str] = getattr(driver, "stub_modules", {})
        for name in getattr(driver, "stubs", ()):
            if name not in KERNEL_DRIVERS:
                variant = "*:*" if is_vfio_driver(name) else None
                module = modules.get(name, name)
                host.add_driver(
                    name, module=module, loaded=False, variant_for=variant, managed_dma=True
                )


def find_host(uri: str, registry: Registry, path: Path, *, real: bool) -> Host:
    """The host for a URI: what it brings along, this machine (`real`), or a new one at `path`."""
    rows = _rows(uri, registry)
    brought = None if _is_fresh(uri) else next(filter(None, (r.host_for(uri) for r in rows)), None)
    if brought is not None:
        return brought
    if real and not _is_fresh(uri):
        return Host()
    if (file := _captured(uri)) is not None:
        return SimulatedHost.replay(file, path)
    host = make_sample(path, dom0=any(wants_dom0(row) for row in rows))
    add_stubs(host, *rows)
    return host


@contextmanager
def connected(
    uri: str, host: Host, registry: Registry, *, real: bool
) -> Generator[Connection, None, None]:
    """A connection to this host; with `real`, what was lent meanwhile is given back at the end."""
    if not real and not isinstance(host, OpenedMachine):
        pytest.fail(f"{uri}: {host.root} is no simulated host; {ON_A_REAL_HOST}", pytrace=False)
    lent = Lent(host, registry)
    if real:
        registry.register(lent, name="hostdev_core.testing")
    try:
        with _open(uri, host, registry) as conn:
            yield conn
    finally:
        lent.give_back()


def _open(uri: str, host: Host, registry: Registry) -> Connection:
    if _is_fresh(uri):
        uri = f"test://{host.root}"
    uri = uri.replace("{root}", host.root)
    if any(row.host_for(uri) is not None for row in _rows(uri, registry)):
        return open_connection(uri, registry=registry)
    try:
        return open_connection(uri, host=host, registry=registry)
    except NoDriverError as error:
        if others := sorted(registry.choice.installed - {*registry.plugins}):
            raise NoDriverError(
                f"{error}; installed and not loaded: {', '.join(others)} (--hostdev-plugin=NAME)"
            ) from None
        raise


def _is_fresh(uri: str) -> bool:
    """Whether the URI asks for a simulated host that the fixture makes, so that a test can see it."""
    return uri == "test:///default" or "{root}" in uri or _captured(uri) is not None


def _captured(uri: str) -> str | None:
    """The file of `hostdev capture` in a URI."""
    path = unquote(urlsplit(uri).path)
    return path if uri.startswith("test:///") and os.path.isfile(path) else None


def _rows(uri: str, registry: Registry) -> Sequence[HostdevDriver]:
    scheme = urlsplit(uri).scheme
    return [row for row in registry.driver_table if scheme in row.uri_schemes]


class Lent:
    """A plugin that remembers the devices that connections lend, and gives them back to the host."""

    def __init__(self, host: Host, registry: Registry) -> None:
        self._host = host
        self._registry = registry
        self._lent: dict[Borrower, dict[str, Device]] = {}

    @hookimpl
    def hostdev_after_prepare(
        self, conn: Connection, domain: Domain | None, devices: Sequence[Device]
    ) -> None:
        """Remember the new devices; those that the domain had before (ALLOW_SAME_OWNER) are not ours."""
        new = {r.address for r in conn.host.ledger.records() if r.phase is Phase.PREPARING}
        lent = self._lent.setdefault(_key(conn, domain), {})
        lent |= {device.name: device for device in devices if device.name in new}

    @hookimpl
    def hostdev_after_reattach(
        self, conn: Connection, domain: Domain | None, devices: Sequence[Device]
    ) -> None:
        """Forget each device that is back: another process may have it by the end of the test."""
        for device in devices:
            self._lent.get(_key(conn, domain), {}).pop(device.name, None)

    def give_back(self) -> None:
        """Try everything; ReattachError with one error for each part that is not back."""
        errors: list[Exception] = []
        for (uri, domain), devices in reversed([*self._lent.items()]):
            with _open(uri, self._host, self._registry) as conn:
                for way in _ways_back(conn, domain, [*devices.values()]):
                    try:
                        way()
                    except HostdevError as error:
                        errors.append(error)
        if errors:
            raise ReattachError("what the test left lent could not be given back", errors)


def _key(conn: Connection, domain: Domain | None) -> Borrower:
    return conn.uri, None if domain is None else domain.name


def _ways_back(
    conn: Connection, domain: str | None, devices: Sequence[Device]
) -> Iterator[Callable[[], object]]:
    pci = [PCIHostdev(address=d.address) for d in devices if isinstance(d, PCIDevice)]
    usb = [USBHostdev(port=d.port) for d in devices if isinstance(d, USBDevice)]
    if domain is None:
        for hostdev in pci:
            yield partial(conn.reattach_device, str(hostdev.address))
    else:
        yield partial(conn.reattach_pci_hostdevs, domain, pci)
        yield partial(conn.reattach_usb_hostdevs, domain, usb)
