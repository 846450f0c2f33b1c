"""Writes down which host device was lent to which virtual machine, when and for how long.

To a file, to the journal, to syslog: `HOSTDEV_AUDIT_TO` says which. It brings no driver, so every
connection calls it. It refuses nothing: a log that cannot be written is reported through `logging`
and stops neither a prepare nor a return.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from hostdev_audit.daemons import Journal, Syslog
from hostdev_audit.log import AuditLog, Entry
from hostdev_core import Connection, Device, Domain, Host, hookimpl

PATH_VARIABLE = "HOSTDEV_AUDIT_LOG"
DEFAULT_PATH = "var/log/hostdev/audit.jsonl"
TO_VARIABLE = "HOSTDEV_AUDIT_TO"
log = logging.getLogger("hostdev.audit")


class Target(Protocol):
    """Where lines go; what goes wrong there is logged, never raised."""

    def write(self, entry: Entry) -> None:
        """Take one line."""


class AuditPlugin:
    """The hooks; each writes one line for all devices of one call."""

    @hookimpl
    def hostdev_after_prepare(
        self, conn: Connection, domain: Domain | None, devices: Sequence[Device]
    ) -> None:
        """Lent; a `prepare_failed` that follows takes it back."""
        event = "detached" if domain is None else "lent"
        _write(conn, event, domain, [_described(device) for device in devices])

    @hookimpl
    def hostdev_prepare_failed(
        self,
        conn: Connection,
        domain: Domain | None,
        devices: Sequence[Device],
        error: BaseException,
    ) -> None:
        """Not lent; the error's notes name what could not be undone."""
        entries = [_described(device) for device in devices]
        notes = list(getattr(error, "__notes__", ()))
        message = f"{type(error).__name__}: {error}"
        _write(conn, "prepare_failed", domain, entries, error=message, notes=notes)

    @hookimpl
    def hostdev_before_reattach(
        self, conn: Connection, domain: Domain | None, devices: Sequence[Device]
    ) -> None:
        """On their way; what no `returned` follows did not arrive, even when all was killed."""
        _write(conn, "returning", domain, [_described(device) for device in devices])

    @hookimpl
    def hostdev_after_reattach(
        self,
        conn: Connection,
        domain: Domain | None,
        devices: Sequence[Device],
        errors: Mapping[str, Exception],
    ) -> None:
        """Returned, with how long each was away; and what was not, with why."""
        _write(conn, "returned", domain, _with_durations(conn, domain, devices))
        for address, error in errors.items():
            message = f"{type(error).__name__}: {error}"
            _write(conn, "not_returned", domain, [{"address": address}], error=message)


def log_path(host: Host) -> str:
    """Where the file is: `HOSTDEV_AUDIT_LOG`, or /var/log/hostdev/audit.jsonl of the host."""
    return os.environ.get(PATH_VARIABLE) or host.path(DEFAULT_PATH)


TARGETS: dict[str, Callable[[Host], Target]] = {
    "file": lambda host: AuditLog(log_path(host)),
    "journal": lambda host: Journal(host.path("run/systemd/journal/socket")),
    "syslog": lambda host: Syslog(host.path("dev/log")),
}


def targets() -> tuple[str, ...]:
    """Where the lines go, by `HOSTDEV_AUDIT_TO`: names of TARGETS; the file where it has none."""
    words = os.environ.get(TO_VARIABLE, "").lower().replace(",", " ").split()
    if unknown := [word for word in words if word not in TARGETS]:
        log.error("%s names %s; wanted %s", TO_VARIABLE, ", ".join(unknown), ", ".join(TARGETS))
    return tuple(name for name in TARGETS if name in words) or ("file",)


def _write(
    conn: Connection, event: str, domain: Domain | None, entries: list[Entry], **more: object
) -> None:
    if not entries:
        return
    line: Entry = {
        "time": datetime.now(UTC).isoformat(),
        "event": event,
        "domain": domain.name if domain else None,
        "uuid": domain.uuid if domain else None,
        "driver": conn.hostdev_driver.name if conn.hostdev_driver else None,
        "uri": conn.uri,
        "devices": entries,
        **more,
        "uid": os.getuid(),
        "pid": os.getpid(),
    }
    for name in targets():
        TARGETS[name](conn.host).write(line)


def _described(device: Device) -> Entry:
    return {"kind": device.kind, "address": device.name, "ids": device.ids}


def _with_durations(
    conn: Connection, domain: Domain | None, devices: Sequence[Device]
) -> list[Entry]:
    """Each device with `seconds`: how long it was away by the wall clock, None if no line says."""
    since = _lent_since(conn, domain, devices)
    now = datetime.now(UTC)
    entries: list[Entry] = []
    for device in devices:
        start = since.get((device.kind, device.name))
        seconds = None if start is None else max(0.0, round((now - start).total_seconds(), 3))
        entries.append({**_described(device), "seconds": seconds})
    return entries


def _lent_since(
    conn: Connection, domain: Domain | None, devices: Sequence[Device]
) -> dict[tuple[str, str], datetime]:
    """When each device was lent; only the file can be asked."""
    if not devices or "file" not in targets():
        return {}
    borrower = domain.name if domain else None
    borrowers = {
        (device.kind, device.name): device.used_by.domain if device.used_by else borrower
        for device in devices
    }
    return AuditLog(log_path(conn.host)).lent_since(borrowers)


plugin = AuditPlugin()
