"""Connection URIs: which one is meant, and its scheme."""

import logging
import os
from functools import partial
from urllib.parse import urlsplit

from hostdev_core import backend as answers
from hostdev_core.errors import HostdevError, InvalidURIError, NoDriverError
from hostdev_core.host import Host
from hostdev_core.model.address import quoted
from hostdev_core.registry.registry import Registry
from hostdev_core.this_machine import this_machine

DEFAULT_URI = "HOSTDEV_DEFAULT_URI"
log = logging.getLogger("hostdev")


def which_uri(uri: str | None, registry: Registry, host: Host | None) -> tuple[str, str]:
    """The URI that is meant, and what to call it in a message: one of the environment by its variable."""
    if not uri and (uri := os.environ.get(DEFAULT_URI)):
        return uri, f"{DEFAULT_URI}={quoted(uri)}"
    uri = uri or _offered(registry, host or this_machine())
    return uri, quoted(uri)


def scheme_of(uri: object, named: str) -> str:
    """The scheme of a URI; InvalidURIError for what is none."""
    if isinstance(uri, str) and uri.isprintable():
        try:
            scheme = urlsplit(uri).scheme
        except ValueError as error:
            raise InvalidURIError(f"{named} is no URI: {error}") from None
        if scheme and uri.lower().startswith(f"{scheme}://"):
            return scheme
    raise InvalidURIError(f"{named} is no connection URI; wanted one like qemu:///system")


def unknown_scheme(named: str, scheme: str, registry: Registry) -> NoDriverError:
    """The error for a scheme that no driver has: the known ones, and what failed to load."""
    known = ", ".join(registry.driver_table.schemes) or "none"
    failed = "".join(f"; {error}" for error in registry.load_errors)
    return NoDriverError(
        f"no driver for {named}: scheme {scheme!r} is unknown, known are: {known}{failed}"
    )


def _offered(registry: Registry, host: Host) -> str:
    for row in registry.driver_table:
        try:
            offered = answers.ask(row, "default_uri", partial(row.default_uri, host))
        except HostdevError as error:
            log.warning("%s; the next driver is asked", error)
            continue
        if offered:
            return offered
    raise NoDriverError(f"no driver offers a default URI; give one, or set {DEFAULT_URI}")
