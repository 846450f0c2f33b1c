"""`hostdev plugins`: the drivers and plugins that are installed, and those that do not load."""

import logging
from typing import Any

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import complain, emit_json, table
from hostdev_core.entries import find_entries
from hostdev_core.registry import Registry

HEADERS = ("PLUGIN", "FROM", "DRIVERS", "URIS", "HOOKS")


def run(options: Options) -> int:
    """Print the plugins."""
    logging.getLogger("hostdev").setLevel(logging.CRITICAL)  # load errors are shown below
    registry = Registry.from_entry_points()
    plugins = _plugins(registry)
    errors = [{"plugin": each.plugin, "error": str(each)} for each in registry.load_errors]
    if options.json:
        emit_json({"plugins": plugins, "errors": errors})
        return 0
    table(HEADERS, [("", [_row(plugin) for plugin in plugins])])
    for error in errors:
        complain(error["error"])
    return 0


def _plugins(registry: Registry) -> list[dict[str, Any]]:
    origins = {
        entry.name: f"{entry.dist.name} {entry.dist.version}" if entry.dist else None
        for entry in find_entries()[0]
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in registry.plugins}
    for row in registry.driver_table:
        about = {"name": row.name, "uri_schemes": [*row.uri_schemes]}
        rows[registry.driver_table.plugin_of(row)].append(about)
    return [
        {
            "name": name,
            "distribution": origins.get(name),
            "drivers": rows[name],
            "hooks": [hook.removeprefix("hostdev_") for hook in registry.hooks_of(name)],
        }
        for name in registry.plugins
    ]


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
