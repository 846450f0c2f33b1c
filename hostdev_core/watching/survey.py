"""All that is known of a host's devices and records, brought up to date where something may have changed."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.inventory.drift import Drift, compare_with_kernel
from hostdev_core.inventory.holders import cdev_nodes
from hostdev_core.inventory.inventory import read_records, record_state
from hostdev_core.model.record import Record
from hostdev_core.runtime.operation import describe, is_alive
from hostdev_core.watching.differences import ABSENT, Key, Snapshot, Standing
from hostdev_core.watching.openers import Openers
from hostdev_core.watching.wakeups import EVERYTHING, NOTHING, Changes, Wakeups

if TYPE_CHECKING:
    from hostdev_core.bus.bus import Bus
    from hostdev_core.host import Host
    from hostdev_core.model.device import Device

# While a domain has a device, or an operation is at work on it, its nodes are open as they should be.
_NOBODYS = frozenset({"free", "inactive", "waiting"})
_AT_WORK = frozenset({"preparing", "releasing"})


class _Seen(NamedTuple):
    """A device that is there: its directory, its driver, and its nodes."""

    inode: int
    kernel_driver: str | None
    nodes: tuple[str, ...]
    claims: tuple[str, ...]


class Survey:
    """A picture of a host in four parts: devices, records, how they disagree, who has nodes open.

    Each is read anew when `wakeups` tells that it may have changed. What could not be read stays due.
    """

    def __init__(self, host: "Host", wakeups: Wakeups) -> None:
        self._host = host
        self._wakeups = wakeups
        self._due = EVERYTHING
        self._devices: dict[Key, _Seen] = {}
        self._records: dict[Key, Record] = {}
        self._dead: frozenset[str] = frozenset()
        self._works: dict[str, str] = {}
        self._uncompared: set[Key] = set()
        self._drift: dict[Key, str] = {}
        self._openers = Openers(host)

    @property
    def next_look(self) -> float | None:
        """When something is due, by time.monotonic(); None while nothing is."""
        return 0.0 if self._due != NOTHING else self._openers.due

    def update(self) -> bool:
        """Look at what may have changed; False when nothing may have.

        NotPermittedError, StateError or KernelError where it cannot be seen; the next call tries again.
        """
        self._due = due = self._due.plus(self._wakeups.drain())
        may_differ = self._openers.search_if_due()
        if due == NOTHING:
            return may_differ
        self._openers.touched(due.nodes)
        changed = self._look_at_ledger(due)
        # With its record, for the kernel's word on a device may come a moment after the ledger's.
        self._look_at_devices(due.plus(Changes(devices=frozenset(changed))))
        self._due = NOTHING
        self._compare()
        return True

    def search_now(self) -> None:
        """Find out who has which node open, without the moment that a short opener is given."""
        self._openers.search()

    def snapshot(self) -> Snapshot:
        """What stands with each device that is there, or that has a record."""
        return {key: self._standing(key) for key in self._devices.keys() | self._records.keys()}

    def _standing(self, key: Key) -> Standing:
        seen, record = self._devices.get(key), self._records.get(key)
        found = ABSENT
        if record is not None:
            state = record_state(record, lambda op: op not in self._dead)
            reason = self._reason(record, state)
            found = Standing(state=state, owner=record.owner, reason=reason)
        if seen is not None:
            found = found._replace(inode=seen.inode, kernel_driver=seen.kernel_driver)
            if found.state in _NOBODYS:
                found = found._replace(held=(*self._openers.of(seen.nodes), *seen.claims))
        return found._replace(drift=self._drift.get(key))

    def _reason(self, record: Record, state: str) -> str | None:
        if state in _AT_WORK and record.op is not None:
            return self._works.get(record.op)
        if state == "left over":
            return "the operation that worked on it was killed; `hostdev recover` undoes or finishes it"
        return record.stuck

    def _look_at_ledger(self, due: Changes) -> set[Key]:
        """Read the records where they may have changed, or an operation of theirs has ended."""
        if not (due.everything or due.ledger or due.ended & _operations(self._records)):
            return set()
        records = self._read_records()
        dead = {op for op in _operations(records) if op in due.ended or not self._lives(op)}
        if dead:
            # An operation settles its records and ends after that: only one that was killed leaves any.
            records = self._read_records()
        operations = _operations(records)
        self._dead = frozenset(dead & operations)
        known = {op: self._works[op] for op in operations & self._works.keys()}
        new = {op: describe(self._host.state_dir, op) for op in operations - known.keys()}
        self._works = known | new
        changed = _differing(self._records, records)
        self._uncompared |= changed
        self._records = records
        return changed

    def _read_records(self) -> dict[Key, Record]:
        return {record.key: record for record in read_records(self._host)}

    def _lives(self, operation: str) -> bool:
        # Dead is for ever; and the kernel tells of the close of a file before it drops the lock.
        return operation not in self._dead and is_alive(self._host.state_dir, operation)

    def _look_at_devices(self, due: Changes) -> None:
        """Read the devices that may have changed."""
        if due.everything:
            now = dict(self._see_all())
        else:
            now = {key: seen for key, seen in self._devices.items() if key not in due.devices}
            now |= {key: seen for key in due.devices if (seen := self._see_one(key)) is not None}
        changed = _differing(self._devices, now)
        self._uncompared |= changed
        self._devices = now
        if changed or due.everything:
            nodes = {node for seen in now.values() for node in seen.nodes}
            self._wakeups.watch_folders({node.rpartition("/")[0] for node in nodes})
            self._openers.follow(nodes, again=due.everything)

    def _see_all(self) -> Iterator[tuple[Key, _Seen]]:
        for kind, bus in self._host.buses.items():
            for name, device in bus.devices().items():
                if (seen := self._see(bus, device)) is not None:
                    yield (kind, name), seen

    def _see_one(self, key: Key) -> _Seen | None:
        bus = self._host.buses[key[0]]
        device = bus.read(key[1])
        return None if device is None else self._see(bus, device)

    def _see(self, bus: "Bus", device: "Device") -> _Seen | None:
        inode = self._host.sysfs.inode(bus.path(device.name))
        if inode is None:
            return None
        driver = bus.kernel_driver(device.name) if bus.has_steps else None
        nodes = [bus.node(device), *(cdev_nodes(self._host, device.name) if driver else ())]
        paths = tuple(self._host.path(node) for node in nodes if node is not None)
        return _Seen(inode, driver, paths, tuple(bus.claims(device)))

    def _compare(self) -> None:
        """Compare records with their devices, where either has changed."""
        keys = self._uncompared
        records = [self._records[key] for key in sorted(keys) if key in self._records]
        found = dict(map(_told, compare_with_kernel(self._host, records)))
        if found:
            # A change of the ledger comes before what it does to a device. Where none has come by now, the
            # records that were compared are the right ones; else they are compared at the next look.
            self._due = self._wakeups.drain()
            if self._due.ledger or self._due.everything:
                return
        self._drift = {key: text for key, text in self._drift.items() if key not in keys} | found
        self._uncompared = set()


def _differing(before: Mapping[Key, object], after: Mapping[Key, object]) -> set[Key]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _operations(records: Mapping[Key, Record]) -> set[str]:
    return {record.op for record in records.values() if record.op is not None}


def _told(found: tuple[Record, Drift]) -> tuple[Key, str]:
    record, drift = found
    return record.key, f"{drift.what}: {drift.detail}"
