"""Opening a connection: find the drivers and the host that a URI means."""

from importlib import import_module

from hostdev_core.checks import call_driver
from hostdev_core.connection import Connection
from hostdev_core.driver import HostdevDriver
from hostdev_core.errors import InputError
from hostdev_core.host import Host
from hostdev_core.registry.registry import Registry
from hostdev_core.registry.state_drivers import close_quietly
from hostdev_core.registry.uri import choose_uri, scheme_of, unknown_scheme
from hostdev_core.runtime.deadlines import Deadlines, checked
from hostdev_core.this_machine import tell_of_simulation, this_machine

# What a call imports when it begins.
PARTS = (
    "hostdev_core.bus.buses",
    "hostdev_core.lending.prepare",
    "hostdev_core.lending.reattach",
    "hostdev_core.lending.recovery",
    "hostdev_core.lending.reset",
    "hostdev_core.lending.to_host",
    "hostdev_core.planning.planner",
)


def open_connection(
    uri: str | None = None,
    *,
    host: Host | None = None,
    registry: Registry | None = None,
    read_only: bool = False,
    deadlines: Deadlines | None = None,
    worker: bool = False,
) -> Connection:
    """Open a connection to one hypervisor's driver on one host.

    Without `uri`: `HOSTDEV_DEFAULT_URI` of the environment, then the first default that a driver of
    the driver table offers for the host. Without `registry`: all installed plugins. `read_only`
    refuses every change, and neither creates nor recovers anything. With `worker`, each change is
    carried out by a process of its own, which goes on when this one is left or killed; without, this
    process cannot end while the kernel keeps one of its threads. In a program of several threads that
    is a new interpreter, which gets the call as data: StateError for a plugin with a driver that cannot
    be brought there (docs/reliability.md, "Workers"). Without `host`, and where the URI brings none, it is
    this machine, or the simulated one that `HOSTDEV_SIMULATED_HOST` names (docs/testing.md).

    Raises InvalidURIError, NoDriverError, or as the driver did; no driver is chosen then.
    """
    # A program may go on for months. What gives a device back then must be of the version that lent it,
    # although another one is installed by now.
    for part in PARTS:
        import_module(part)
    if registry is None:
        return _open_with_all(uri, host, read_only, deadlines, worker)
    return _open(uri, host, registry, read_only, deadlines, worker)


def open_for_one_call(
    uri: str | None,
    *,
    host: Host | None = None,
    read_only: bool = False,
    deadlines: Deadlines | None = None,
) -> Connection:
    """The same, with a worker, for a program that makes one call and ends: it loads no others."""
    return _open_with_all(uri, host, read_only, deadlines, worker=True)


def _open_with_all(
    uri: str | None, host: Host | None, read_only: bool, deadlines: Deadlines | None, worker: bool
) -> Connection:
    """Open it with a registry of all installed plugins."""
    # The connection closes it with itself; where there is none, it is closed here.
    own = Registry.from_entry_points()
    try:
        return _open(uri, host, own, read_only, deadlines, worker, closes_registry=True)
    except BaseException:
        close_quietly(own)
        raise


def _open(
    uri: str | None,
    host: Host | None,
    registry: Registry,
    read_only: bool,
    deadlines: Deadlines | None,
    worker: bool,
    *,
    closes_registry: bool = False,
) -> Connection:
    chosen, named = choose_uri(uri, registry, host)
    scheme = scheme_of(chosen, named)
    drivers = [driver for driver in registry.driver_table if scheme in driver.uri_schemes]
    if not drivers:
        raise unknown_scheme(named, scheme, registry)
    # A driver of simulated hosts makes or opens one by the URI; the others answer None.
    own_hosts = (_host_for(driver, chosen) for driver in drivers)
    of_uri = next((found for found in own_hosts if found is not None), None)
    if of_uri is not None and host is not None:
        raise InputError(f"{named} brings its own host; give either the URI or host=")
    machine = of_uri or host or this_machine(deadlines=deadlines)
    if of_uri is None and host is None and machine.root != "/" and not read_only:
        tell_of_simulation(machine)
    if deadlines is not None:
        machine.deadlines = checked(deadlines)
    return Connection(
        chosen,
        machine,
        registry,
        read_only=read_only,
        worker=worker,
        closes_registry=closes_registry,
        named=named,
    )


def _host_for(driver: HostdevDriver, uri: str) -> Host | None:
    return call_driver(driver, "host_for", lambda: driver.host_for(uri))
