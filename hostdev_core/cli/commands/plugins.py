"""`hostdev plugins`: the drivers and plugins that are installed, and those that do not load."""

import logging
import sys
from contextlib import redirect_stdout
from typing import Any

from hostdev_core.cli.failures import REFUSED
from hostdev_core.cli.layout import Column
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit_json, print_error, table
from hostdev_core.errors import Origin, PluginError
from hostdev_core.registry.registry import Registry

COLUMNS = tuple(Column(title) for title in ("PLUGIN", "FROM", "DRIVERS", "URIS", "HOOKS"))


def run(options: Options) -> int:
    """Print the plugins; exit code 1 (REFUSED) when one does not load."""
    logging.getLogger("hostdev").setLevel(logging.CRITICAL)  # load errors are shown below
    with redirect_stdout(sys.stderr):  # plugins may print while they load
        registry = Registry.from_entry_points()
    plugins = _plugins(registry)
    if options.json:
        emit_json({"plugins": plugins, "errors": [*map(_error, registry.load_errors)]})
    else:
        table(COLUMNS, [("", [_row(plugin) for plugin in plugins])])
        for error in registry.load_errors:
            print_error(error)
        for name in registry.choice.unknown:
            why = registry.choice.why_absent(name)
            print_error(f"HOSTDEV_DISABLE_PLUGINS names plugin {name!r}, which {why}")
    return REFUSED if registry.load_errors else 0


def _plugins(registry: Registry) -> list[dict[str, Any]]:
    drivers: dict[str, list[dict[str, Any]]] = {name: [] for name in registry.plugins}
    for driver in registry.driver_table:
        described = {"name": driver.name, "uri_schemes": [*driver.uri_schemes]}
        drivers[registry.driver_table.plugin_of(driver)].append(described)
    return [
        {
            "name": name,
            **_origin(registry.origin_of(name)),
            "drivers": drivers[name],
            "hooks": [hook.removeprefix("hostdev_") for hook in registry.hooks_of(name)],
        }
        for name in registry.plugins
    ]


def _error(error: PluginError) -> dict[str, Any]:
    return {"plugin": error.plugin, **_origin(error.origin), "error": str(error)}


def _origin(origin: Origin | None) -> dict[str, str | None]:
    found = origin or Origin(None, "", None)
    return {
        "distribution": found.distribution,
        "entry_point": found.value,
        "file": found.file,
    }


def _row(plugin: dict[str, Any]) -> list[str]:
    drivers = plugin["drivers"]
    schemes = [f"{scheme}://" for driver in drivers for scheme in driver["uri_schemes"]]
    return [
        plugin["name"],
        plugin["distribution"] or "-",
        ", ".join(driver["name"] for driver in drivers) or "-",
        " ".join(schemes) or "-",
        ", ".join(hook for hook in plugin["hooks"] if hook != "drivers") or "-",
    ]
