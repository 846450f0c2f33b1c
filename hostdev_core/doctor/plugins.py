"""Plugins: those that do not load, those that are missing, and whether one refuses what the host needs."""

from collections.abc import Iterator

from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.host import Host
from hostdev_core.registry.registry import Registry

LOADED = Code("plugins-loaded", Level.OK, "All installed plugins load")
BROKEN = Code(
    "plugin-broken",
    Level.PROBLEM,
    "A plugin does not load: nothing that it checks is checked",
    "install it anew or remove it; `hostdev plugins` names each one's package",
)
REQUIRED = Code(
    "plugin-required-missing",
    Level.PROBLEM,
    "A plugin that HOSTDEV_REQUIRE_PLUGINS names is missing: every change is refused",
    "install it, or take its name out of HOSTDEV_REQUIRE_PLUGINS",
)
UNINSTALLED = Code(
    "plugin-not-installed",
    Level.NOTE,
    "HOSTDEV_DISABLE_PLUGINS names a plugin that is not installed",
    "correct the name; `hostdev plugins` lists those that are",
)
GUARDED = Code("guard", Level.OK, "A plugin checks what is lent")
NO_GUARD = Code(
    "guard-missing",
    Level.NOTE,
    "No plugin refuses the devices that the host itself lives on",
    "in a checkout of hostdev: `pip install ./plugins/hostdev-guard`, beside hostdev",
)


def check_plugins(host: Host) -> Iterator[Finding]:
    """Load all plugins, as a change does."""
    del host
    registry = Registry.from_entry_points()
    for error in registry.load_errors:
        yield BROKEN.found(str(error))
    for name in registry.missing:
        yield REQUIRED.found(f"HOSTDEV_REQUIRE_PLUGINS names {name!r}")
    for name in registry.choice.unknown:
        yield UNINSTALLED.found(f"HOSTDEV_DISABLE_PLUGINS names {name!r}")
    if not registry.load_errors:
        yield LOADED.found(", ".join(registry.plugins))
    checking = [name for name in registry.plugins if "hostdev_check" in registry.hooks_of(name)]
    if checking:
        yield GUARDED.found(", ".join(checking))
    else:
        yield NO_GUARD.found("no plugin has the hook hostdev_check")


TOPIC = Topic(
    "Plugins",
    (LOADED, BROKEN, REQUIRED, UNINSTALLED, GUARDED, NO_GUARD),
    (check_plugins,),
)
