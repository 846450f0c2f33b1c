"""The domain and the devices of a command line, as the core wants them."""

from hostdev_core.cli.options import Options
from hostdev_core.domain import Domain, parse_hostdev
from hostdev_core.driver import PrepareFlags


def domain_of(options: Options) -> Domain:
    """The domain with all that it asks for; InputError for a name that is none."""
    rules = frozenset(options.allow)
    hostdevs = [
        parse_hostdev(text, managed=not options.unmanaged, stub=options.stub, allow=rules)
        for text in options.devices
    ]
    return Domain(options.domain, hostdevs, uuid=options.uuid)


def flags_of(options: Options) -> PrepareFlags:
    """How the devices are prepared."""
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
