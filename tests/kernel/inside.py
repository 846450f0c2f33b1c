"""The calls of hostdev that the tests make in the guest, each in a process of its own: see world.call."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from hostdev_core import (
    Assignment,
    Domain,
    Drift,
    Explanation,
    Host,
    Hostdev,
    HostdevError,
    PrepareFlags,
    open_connection,
)
from hostdev_core.cli import main as run_command
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.users import find_users
from hostdev_core.kernel.processes import Search, find_identity
from hostdev_core.model.record import Record

QEMU = "qemu:///system"
Devices = Sequence["str | Hostdev"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def prepare(
    name: str,
    devices: Devices,
    flags: PrepareFlags = PrepareFlags.NONE,
    *,
    uri: str | None = None,
) -> tuple[Assignment, ...]:
    """Lend devices to a domain."""
    with open_connection(uri) as conn:
        return conn.prepare_hostdevs(Domain(name, devices), flags)


def reattach(name: str, *, uri: str | None = None) -> tuple[str, ...]:
    """Give a domain's devices back."""
    with open_connection(uri) as conn:
        return conn.reattach_hostdevs(name)


def give_everything_back() -> None:
    """After a test that failed: leave as little as can be to the next one."""
    with contextlib.suppress(HostdevError), open_connection() as conn:
        conn.recover()
    for record in records().values():
        with contextlib.suppress(HostdevError):
            if record.owner is None:
                with open_connection() as conn:
                    conn.reattach_device(record.address)
            else:
                reattach(record.owner.domain, uri=record.owner.uri)


def recover() -> tuple[str, ...]:
    """Undo or finish what dead operations left."""
    with open_connection() as conn:
        return conn.recover()


def reload() -> tuple[Drift, ...]:
    """What records no longer tell the truth."""
    with open_connection(read_only=True) as conn:
        return conn.reload()


def records() -> dict[str, Record]:
    """The ledger, by address."""
    return {record.address: record for record in Host().ledger.records()}


class Lists(NamedTuple):
    """What the lists say: addresses, and of whom."""

    active: dict[str, str]
    inactive: list[str]
    usb: dict[str, str]


def lists(*, uri: str | None = None) -> Lists:
    """The three lists of the in-use state."""
    with open_connection(uri, read_only=True) as conn:
        active = {d.name: d.used_by for d in conn.get_active_pci_hostdev_list()}
        usb = {d.name: d.used_by for d in conn.get_active_usb_hostdev_list()}
        inactive = [d.name for d in conn.get_inactive_pci_hostdev_list()]
    return Lists(
        {name: used.domain for name, used in active.items() if used},
        inactive,
        {name: used.domain for name, used in usb.items() if used},
    )


def explain(
    devices: Devices, flags: PrepareFlags = PrepareFlags.NONE, *, uri: str | None = None
) -> tuple[Explanation, ...]:
    """Explain devices, for a domain that has nothing."""
    with open_connection(uri, read_only=True) as conn:
        return conn.explain(Domain("nobody", devices), flags)


def every_device() -> list[str]:
    """The addresses and ports of all devices."""
    return [device.name for device in look(Host()).devices]


def users(address: str) -> tuple[str, ...]:
    """Who uses a device, as it is told of one whose kernel does not return."""
    return find_users(Host(), address)


def seen(*nodes: str) -> Search:
    """Who has these nodes open, and what of that cannot be seen."""
    known = (find_identity(node) for node in nodes)
    return Host().search_openers({each for each in known if each is not None})
