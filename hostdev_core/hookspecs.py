"""The hooks: what a plugin may bring, refuse and follow. This is the plugin author's manual.

The driver in the slot acts; hooks are told. A plugin is any object with methods (or a module with
functions) of these names, marked with `hookimpl`; it is found through the entry-point group
`hostdev`. A hook may take fewer arguments than its specification. Plugins are called last registered
first. A connection calls only the plugin of its own driver and those that bring no driver. One that
this hostdev may not know yet is marked with `hookimpl(optionalhook=True)`; else an unknown name is an
error.

No transaction of the ledger is open while a hook runs. Whatever is raised but VetoError and
KeyboardInterrupt becomes a PluginError that names plugin and hook. hostdev takes no hook wrappers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

from hostdev_core.model.rulebook import Refusal as Refusal

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.driver import HostdevDriver
    from hostdev_core.host import Host
    from hostdev_core.inventory.state import StateDriver
    from hostdev_core.model.device import Device
    from hostdev_core.model.domain import Domain

PROJECT = "hostdev"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def hostdev_drivers() -> "Sequence[HostdevDriver]":  # type: ignore[empty-body]
    """Bring rows for the driver table.

    Called once by `Registry.register`, of that plugin alone. Raising, or a row that conflicts, keeps
    the plugin out.
    """


@hookspec
def hostdev_state_drivers(host: "Host") -> "Sequence[StateDriver]":  # type: ignore[empty-body]
    """Bring state drivers for a host: state of the plugin's own that outlives connections.

    Called once for each registry and host, not for other drivers' connections, before the first
    connection that is not read-only has its driver. They are initialized at once, reloaded by
    `Registry.reload`, `Connection.reload` and `recover`, and cleaned up by `Registry.close`, last
    brought first. Raising fails that open.
    """


@hookspec
def hostdev_connection_opened(conn: "Connection") -> None:
    """A connection has its driver. Raising fails the open; the driver is closed again."""


@hookspec
def hostdev_connection_closing(conn: "Connection") -> None:
    """A connection is about to close. What is raised is logged; the close goes on."""


@hookspec
def hostdev_check(
    conn: "Connection", domain: "Domain | None", devices: "Sequence[Device]"
) -> "Iterable[Refusal] | None":
    """Refuse devices, or return nothing.

    Called by plan, prepare, detach and reset (domain None for one device) before anything is
    claimed, perhaps several times: it must only look. All answers of all plugins are collected and
    leave as one VetoError, but for those whose rule the hostdev (or the call) allows. Raising
    refuses too.
    """


@hookspec
def hostdev_rules() -> "Sequence[str]":  # type: ignore[empty-body]
    """The names of the rules that this plugin's hostdev_check refuses by, one word each.

    With them an `allow` of a name that nobody knows is told. A plugin that refuses and does not say by
    which rules keeps every name from being called unknown.
    """


@hookspec
def hostdev_before_prepare(
    conn: "Connection", domain: "Domain | None", devices: "Sequence[Device]"
) -> None:
    """The devices are claimed for this domain; nothing is written to the kernel yet.

    Raising stops the prepare: the claim is dropped. The plugins after this one are not called.
    """


@hookspec
def hostdev_after_prepare(
    conn: "Connection", domain: "Domain | None", devices: "Sequence[Device]"
) -> None:
    """All devices are on their stub, still claimed. Raising undoes everything."""


@hookspec
def hostdev_prepare_failed(
    conn: "Connection",
    domain: "Domain | None",
    devices: "Sequence[Device]",
    error: BaseException,
) -> None:
    """A prepare failed, and was undone as far as possible; notes of `error` name the rest.

    Called exactly once for every before_prepare of this plugin that was not followed by the
    devices being lent. What is raised becomes a note of `error`.
    """


@hookspec
def hostdev_before_reattach(
    conn: "Connection", domain: "Domain | None", devices: "Sequence[Device]"
) -> None:
    """These devices are about to be restored; nobody holds them. Raising never stops that."""


@hookspec
def hostdev_after_reattach(
    conn: "Connection",
    domain: "Domain | None",
    devices: "Sequence[Device]",
    errors: "Mapping[str, Exception]",
) -> None:
    """These devices are as they were found; `errors` say, by address, why others are not.

    Called once for each reattach that had something to give back, also when nothing was. What is
    raised is part of the ReattachError.
    """
