"""Connection URIs: choose the one that a call means, and read its scheme."""

import logging
import os
from functools import partial
from urllib.parse import urlsplit

from hostdev_core.checks import call_driver
from hostdev_core.errors import HostdevError, InvalidURIError, NoDriverError
from hostdev_core.host import Host
from hostdev_core.model.address import quoted
from hostdev_core.model.spelling import nearest
from hostdev_core.registry.registry import Registry
from hostdev_core.this_machine import this_machine

DEFAULT_URI = "HOSTDEV_DEFAULT_URI"
log = logging.getLogger("hostdev")


def choose_uri(uri: str | None, registry: Registry, host: Host | None) -> tuple[str, str]:
    """Choose the URI of a call; return it, and its name in messages.

    It is `uri`, else that of the environment (whose name in messages has the variable), else the first
    default that a driver offers.
    """
    if not uri and (uri := os.environ.get(DEFAULT_URI)):
        return uri, f"{DEFAULT_URI}={quoted(uri)}"
    uri = uri or _default_uri(registry, host or this_machine())
    return uri, quoted(uri)


def scheme_of(uri: object, named: str) -> str:
    """Read the scheme of a URI; InvalidURIError for a value that is none. `named` stands in messages."""
    if isinstance(uri, str) and uri.isprintable():
        try:
            scheme = urlsplit(uri).scheme
        except ValueError as error:
            raise InvalidURIError(f"{named} is no URI: {error}") from None
        if scheme and uri.lower().startswith(f"{scheme}://"):
            return scheme
    raise InvalidURIError(f"{named} is no connection URI; wanted one like qemu:///system")


def unknown_scheme(named: str, scheme: str, registry: Registry) -> NoDriverError:
    """Make the error for a scheme that no driver has: with the known ones, and the plugins not loaded."""
    known = ", ".join(registry.driver_table.schemes) or "none"
    near = nearest(scheme, registry.driver_table.schemes)
    meant = f" (did you mean {near}?)" if near else ""
    failed = "".join(f"; {error}" for error in registry.load_errors)
    return NoDriverError(
        f"no driver for {named}: scheme {scheme!r} is unknown{meant}, known are: {known}{failed}"
    )


def _default_uri(registry: Registry, host: Host) -> str:
    for driver in registry.driver_table:
        try:
            offered = call_driver(driver, "default_uri", partial(driver.default_uri, host))
        except HostdevError as error:
            log.warning("%s; the next driver is asked", error)
            continue
        if offered:
            return offered
    raise NoDriverError(f"no driver offers a default URI; give one, or set {DEFAULT_URI}")
