"""The domain, the devices and the flags of a command line, as the core's values."""

import shlex
from collections.abc import Callable, Iterable

from hostdev_core.cli.options import Options
from hostdev_core.errors import InputError
from hostdev_core.model.address import parse_address, quoted
from hostdev_core.model.domain import Domain, Hostdev, PrepareFlags, parse_hostdev
from hostdev_core.model.words import arguments
from hostdev_core.registry.registry import Registry
from hostdev_core.registry.uri import scheme_of, unknown_scheme


def domain_of(options: Options) -> Domain:
    """Make the domain with its hostdevs; InputError for a text that names no device."""
    return Domain(options.domain, hostdevs_of(options, options.devices), uuid=options.uuid)


def hostdevs_of(options: Options, texts: Iterable[str]) -> list[Hostdev]:
    """Make the hostdevs of these names, lent as the options say; InputError as for `domain_of`."""
    rules = frozenset(options.allow)
    return [
        parse_hostdev(text, managed=not options.unmanaged, stub=options.stub, allow=rules)
        for text in texts
    ]


def check_order(options: Options, is_known: Callable[[], bool] = lambda: False) -> None:
    """Raise InputError for a device in the domain's place: other tools' commands begin with the devices.

    A domain that is really called so needs its UUID, or to be known by its name.
    """
    if options.uuid is not None or not _names_device(options.domain) or is_known():
        return
    words = [options.domain, *options.devices]
    # One word that is no device is probably the domain: the suggestion can be pasted then.
    names = [word for word in options.devices if not _names_device(word)]
    domain = names[0] if len(names) == 1 else "DOMAIN"
    meant = [
        *options.program,
        options.command,
        *arguments([domain, *(word for word in words if word not in names)]),
    ]
    raise InputError(
        f"{quoted(options.domain)} reads as a device, and the domain comes first; probably meant:"
        f" `{shlex.join(meant)}`. A domain that is called so needs its --uuid"
    )


def _names_device(word: str) -> bool:
    try:
        parse_address(word)
    except InputError:
        return False
    return True


def check_uri(uri: str) -> None:
    """Raise InvalidURIError or NoDriverError for a URI that no driver has; nothing is opened."""
    registry = Registry.from_entry_points()
    scheme = scheme_of(uri, quoted(uri))
    if scheme not in registry.driver_table.schemes:
        raise unknown_scheme(quoted(uri), scheme, registry)


def flags_of(options: Options) -> PrepareFlags:
    """Read the flags for prepare from the options."""
    chosen = (
        (not options.hotplug, PrepareFlags.COLD_BOOT),
        (options.whole_group, PrepareFlags.WHOLE_GROUP),
        (options.same_owner, PrepareFlags.ALLOW_SAME_OWNER),
        (options.require_reset, PrepareFlags.REQUIRE_RESET),
    )
    flags = PrepareFlags.NONE
    for is_set, flag in chosen:
        flags |= flag if is_set else PrepareFlags.NONE
    return flags
