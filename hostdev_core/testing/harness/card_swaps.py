"""Disturbance: at the nth moment of a call a device is exchanged for another card.

The new card is nobody's: it stays as it was plugged in, or, where a slot of pciback has seized it,
is that again when everything was given back. The other devices are as without it.
"""

import threading

from hostdev_core import Connection
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import add_card
from hostdev_core.testing.harness.arena import Arena, devices, part_of, world
from hostdev_core.testing.harness.write_errors import CHANGES

OTHER = "igb"
OTHER_ID = "8086:1521"
PATIENCE = 60.0  # seconds


class Exchange:
    """A watcher that pulls a card out and plugs another one in, with settings of its own.

    As in the kernel no write is under way then: a device's files go when those that write to them
    have returned, and a driver is bound with the device locked. `card` is what the kernel tells of
    the new one where no slot seizes it; None before that.
    """

    def __init__(self, host: SimulatedHost, address: str, moment: int) -> None:
        self.card: dict[str, object] | None = None
        self._host = SimulatedHost.open(host.root)  # its own changes are nobody's moments
        self._address = address
        self._left = moment
        self._changed = threading.Condition()
        self._writing = set[int]()

    def __call__(self, what: str) -> None:
        me = threading.get_ident()
        with self._changed:
            self._writing.discard(me)
            self._changed.notify_all()
            self._left -= 1
            if self._left == 0:
                self._changed.wait_for(lambda: not self._writing, PATIENCE)
                self._exchange()
                self._changed.notify_all()
            elif self._left < 0:
                self._changed.wait_for(lambda: self.card is not None)
            if what.startswith(CHANGES):
                self._writing.add(me)

    def _exchange(self) -> None:
        host, name = self._host, self._address
        group = host.sysfs.link(f"bus/pci/devices/{name}/iommu_group")
        power = "auto" if host.snapshot()[name]["power_control"] == "on" else "on"
        host.unplug(name)
        own: dict[str, str] = {"driver_override": OTHER, "power_control": power}
        add_card(host, name, OTHER, int(group or 0), id=OTHER_ID, **own)
        self.card = {**host.snapshot()[name], "kernel_driver": OTHER}


def exchanged(arena: Arena, moment: int) -> int:
    """Each device that the call is about, one after the other; how many there were."""
    met = 0
    for name in _concerned(arena):
        host = arena.fresh()
        exchange = Exchange(host, name, moment)
        error = arena.outcome(host, arena.scenario.action, exchange)
        if exchange.card is not None:
            what = f"{name} exchanged at moment {moment}"
            _check_spared(arena, host, what, name, exchange.card)
            _check_others(arena, host, what, name, failed=error is not None)
            arena.recover(host)
            if error := arena.outcome(host, _give_everything_back):
                arena.lose(what, f"not given back: {error!r}")
            arena.check(host, what, {**arena.untouched, name: exchange.card})
            met += 1
    return met


def _concerned(arena: Arena) -> list[str]:
    """The PCI devices that the call changes, or has the records of."""
    records = {name.rpartition(" ")[2] for name in arena.before | arena.after if " pci " in name}
    return [name for name in devices(arena.before) if name in records]


def _check_spared(
    arena: Arena, host: SimulatedHost, what: str, name: str, card: dict[str, object]
) -> None:
    """At once, and not only when everything was given back: only a slot may have taken it.

    One that came before the call had looked at it for good may be lent itself.
    """
    inode = host.sysfs.inode(f"bus/pci/devices/{name}")
    if any(r.address == name and r.inode == inode for r in host.ledger.records()):
        return
    now = part_of(world(host), name)
    driver = "pciback" if now["kernel"]["kernel_driver"] == "pciback" and now["slot"] else OTHER
    if now["kernel"] != {**card, "kernel_driver": driver}:
        arena.lose(what, f"the new card is {now}, wanted {card}")


def _check_others(arena: Arena, host: SimulatedHost, what: str, name: str, *, failed: bool) -> None:
    """A prepare that failed has undone everything, a way home was gone by those that could."""
    now = world(host)
    for other in devices(arena.before, arena.after, now):
        known = [part_of(arena.before, other)]
        if not failed or arena.scenario.goes_on:
            known.append(part_of(arena.after, other))
        if other != name and part_of(now, other) not in known:
            arena.lose(what, f"{other} is {part_of(now, other)}, wanted one of {known}")


def _give_everything_back(conn: Connection) -> None:
    """The domain's devices, then those that are on the inactive list."""
    conn.reattach_hostdevs("vm1")
    for record in conn.host.ledger.records():
        conn.reattach_device(record.address)
