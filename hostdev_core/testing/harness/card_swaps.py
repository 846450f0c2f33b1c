"""Disturbance: another card takes a device's place at the nth moment of a call.

The new card belongs to nobody: it stays as it was plugged in, or, where a slot of pciback has seized it,
is that again when everything was given back. The other devices are as without it.
"""

import threading

from hostdev_core import Connection
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import add_card
from hostdev_core.testing.harness.trial import Trial
from hostdev_core.testing.harness.world import devices, part_of, world
from hostdev_core.testing.harness.write_errors import CHANGES

OTHER = "igb"
OTHER_ID = "8086:1521"
PATIENCE = 60.0  # seconds


class Swap:
    """A watcher that pulls a card out and plugs another one in, with settings of its own.

    As in the kernel no write is under way then: a device's files go when those that write to them
    have returned, and a driver is bound with the device locked. `card` is what the kernel tells of
    the new one where no slot seizes it; None before that.
    """

    def __init__(self, host: SimulatedHost, address: str, moment: int) -> None:
        self.card: dict[str, object] | None = None
        self._host = SimulatedHost.open(host.root)  # not watched: its own changes are no moments
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
                self._swap()
                self._changed.notify_all()
            elif self._left < 0:
                self._changed.wait_for(lambda: self.card is not None)
            if what.startswith(CHANGES):
                self._writing.add(me)

    def _swap(self) -> None:
        host, name = self._host, self._address
        group = host.sysfs.link(f"bus/pci/devices/{name}/iommu_group")
        power = "auto" if host.snapshot()[name]["power_control"] == "on" else "on"
        host.unplug(name)
        own: dict[str, str] = {"driver_override": OTHER, "power_control": power}
        add_card(host, name, OTHER, int(group or 0), id=OTHER_ID, **own)
        self.card = {**host.snapshot()[name], "kernel_driver": OTHER}


def swap(trial: Trial, moment: int) -> int:
    """Swap each device that the call is about, one after the other; return how many there were."""
    points = 0
    for name in _concerned(trial):
        host = trial.fresh()
        swapped = Swap(host, name, moment)
        error = trial.outcome(host, trial.scenario.action, swapped)
        if swapped.card is not None:
            what = f"{name} swapped at moment {moment}"
            _check_spared(trial, host, what, name, swapped.card)
            _check_others(trial, host, what, name, failed=error is not None)
            trial.recover(host)
            if error := trial.outcome(host, _give_everything_back):
                trial.lose(what, f"not given back: {error!r}")
            trial.check(host, what, {**trial.untouched, name: swapped.card})
            points += 1
    return points


def _concerned(trial: Trial) -> list[str]:
    """List the PCI devices that the call changes, or has the records of."""
    records = {name.rpartition(" ")[2] for name in trial.before | trial.after if " pci " in name}
    return [name for name in devices(trial.before) if name in records]


def _check_spared(
    trial: Trial, host: SimulatedHost, what: str, name: str, card: dict[str, object]
) -> None:
    """Record a loss where the call has taken the new card; only a slot of pciback may have.

    One that came before the call had read its device for the last time may be lent itself.
    """
    inode = host.sysfs.inode(f"bus/pci/devices/{name}")
    if any(r.address == name and r.inode == inode for r in host.ledger.records()):
        return
    now = part_of(world(host), name)
    driver = "pciback" if now["kernel"]["kernel_driver"] == "pciback" and now["slot"] else OTHER
    if now["kernel"] != {**card, "kernel_driver": driver}:
        trial.lose(what, f"the new card is {now}, wanted {card}")


def _check_others(trial: Trial, host: SimulatedHost, what: str, name: str, *, failed: bool) -> None:
    """Record a loss where a failed prepare is not undone, or a device that could go home did not."""
    now = world(host)
    for other in devices(trial.before, trial.after, now):
        known = [part_of(trial.before, other)]
        if not failed or trial.scenario.goes_on:
            known.append(part_of(trial.after, other))
        if other != name and part_of(now, other) not in known:
            trial.lose(what, f"{other} is {part_of(now, other)}, wanted one of {known}")


def _give_everything_back(conn: Connection) -> None:
    """Give back the domain's devices, then those on the inactive list."""
    conn.reattach_hostdevs("vm1")
    for record in conn.host.ledger.records():
        conn.reattach_device(record.address)
