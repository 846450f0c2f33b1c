"""The file: JSON lines, appended by any number of processes."""

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, cast

Entry = dict[str, Any]
Key = tuple[str, str]

BEGINNINGS = frozenset({"lent", "detached"})
LOOK_BACK = 4 * 1024 * 1024
PATIENCE = 1.0  # seconds for one that is stopped in the middle of its line
log = logging.getLogger("hostdev.audit")


class AuditLog:
    """One file of JSON lines; whatever goes wrong with it is logged, never raised.

    A line is appended by a single write. One that was cut off all the same (a full disk, a kill in
    the middle of the write) harms no other: the next line starts anew.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    def write(self, entry: Entry) -> None:
        """Append one line; the file and its directory are made, for their owner alone."""
        data = json.dumps(entry).encode() + b"\n"
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            fd = self._open(os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                with _alone(fd):
                    written = os.write(fd, (b"\n" if _is_torn(fd) else b"") + data)
            finally:
                os.close(fd)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
        except OSError as error:
            log.error("%s was not written to %s: %s", entry["event"], self._path, error)

    def lent_since(self, borrowers: Mapping[Key, str | None]) -> dict[Key, datetime]:
        """When each device (kind, address) began to be with its borrower.

        Read from the file's last 4 MiB; a device whose beginning is not there is not in the answer.
        """
        since: dict[Key, datetime] = {}
        wanted = dict(borrowers)
        for entry in self._backwards():
            for key in _keys(entry):
                if key not in wanted or wanted[key] != entry.get("domain"):
                    continue
                if entry.get("event") in BEGINNINGS:
                    since[key] = datetime.fromisoformat(entry["time"]).astimezone()
                if entry.get("event") != "returning":
                    del wanted[key]
            if not wanted:
                break
        return since

    def _open(self, flags: int) -> int:
        """A descriptor of the file; a pipe, which could keep us waiting, or a link is an error."""
        fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("not a regular file")
        return fd

    def _backwards(self) -> Iterator[Entry]:
        try:
            with open(self._open(os.O_RDONLY), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOOK_BACK))
                lines = file.read(LOOK_BACK).splitlines()
        except OSError as error:
            log.error("cannot read %s: %s", self._path, error)
            return
        for line in reversed(lines):
            entry = _parsed(line)
            if entry is not None:
                yield entry


@contextmanager
def _alone(fd: int) -> Generator[None, None, None]:
    """Nobody else writes between the look at the last line and the next one.

    As far as that can be had: nothing keeps a device from its guest.
    """
    end = time.monotonic() + PATIENCE
    try:
        while not _is_locked(fd) and time.monotonic() < end:
            time.sleep(PATIENCE / 1000)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do: a fork may have a copy


def _is_locked(fd: int) -> bool:
    """Whether this one has the lock now, or there is none to be had on this file system."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_torn(fd: int) -> bool:
    """Whether the file ends in the middle of a line."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _parsed(line: bytes) -> Entry | None:
    try:
        entry: Any = json.loads(line)
        datetime.fromisoformat(entry["time"])
    except (ValueError, TypeError, KeyError):
        return None
    return cast("Entry", entry) if isinstance(entry, dict) else None


def _keys(entry: Entry) -> list[Key]:
    """The devices of a line; none where it is not one of ours."""
    try:
        return [(str(device["kind"]), str(device["address"])) for device in entry["devices"]]
    except (TypeError, KeyError):
        return []
