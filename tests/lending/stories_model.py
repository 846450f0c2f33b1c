"""A small model of what must be true: who has what, what is plugged in, what a call may do."""

from collections.abc import Container
from copy import deepcopy
from typing import NamedTuple

import attrs

VFIO = "vfio-pci"
Owner = tuple[str, str]


class Card(NamedTuple):
    """A device as it was found: kernel driver, driver_override, power/control."""

    driver: str | None
    override: str = "(null)"
    power: str = "on"


@attrs.define
class Loan:
    """What the ledger must say of a device; without an owner it is on the inactive list.

    `waits`: it has left its domain and stays for its group; `to_list`: where it goes afterwards;
    `life`: which life of the device this is about, since it may be plugged in again.
    """

    owner: Owner | None
    life: int
    handed: bool = True
    waits: bool = False
    to_list: bool = False


@attrs.define
class Model:
    """All devices are in `groups`; one in `barred` is never lent; `on` names a device's controller."""

    found: dict[str, Card]
    groups: dict[str, int]
    barred: frozenset[str]
    on: dict[str, str]
    loans: dict[str, Loan] = attrs.field(factory=dict[str, Loan])
    lives: dict[str, int] = attrs.field(factory=dict[str, int])
    gone: set[str] = attrs.field(factory=set[str])
    held: set[int] = attrs.field(factory=set[int])

    def copy(self) -> "Model":
        return deepcopy(self)

    def life(self, name: str) -> int:
        return self.lives.get(name, 0)

    def is_true(self, name: str) -> bool:
        """Whether the loan is about the device that is there now."""
        loan = self.loans.get(name)
        return loan is not None and name not in self.gone and loan.life == self.life(name)

    def mates(self, name: str) -> list[str]:
        """The others of its IOMMU group."""
        group = self.groups.get(name)
        return [n for n, g in self.groups.items() if n != name and g == group]

    def is_held(self, name: str) -> bool:
        return self.groups.get(name) in self.held

    # What the machine and the ledger look like.

    def world(self) -> dict[str, Card]:
        """The PCI devices that are there."""
        return {name: self._now(name) for name in self.groups if name not in self.gone}

    def _now(self, name: str) -> Card:
        found = self.found[name]
        if not self.is_true(name) or found.driver == VFIO:
            return found
        return Card(VFIO, VFIO, "auto")

    def records(self) -> dict[str, tuple[Owner | None, str, bool]]:
        return {
            name: (
                loan.owner,
                "inactive" if loan.owner is None else "releasing" if loan.waits else "active",
                loan.handed,
            )
            for name, loan in self.loans.items()
        }

    # What calls do; False: it is refused, and nothing changes.

    def prepare(
        self, owner: Owner | None, names: list[str], *, managed: bool, whole: bool, again: bool
    ) -> bool:
        """Lend these to a domain, or detach them without one."""
        fresh: list[str] = []
        for name in names:
            loan = self.loans.get(name)
            if name in self.gone or name in self.barred:
                return False
            void = self.is_void(name) and not (again and loan and loan.owner == owner)
            if loan is None or void or (loan.owner is None and owner is not None):
                fresh.append(name)
            elif loan.owner != owner or not (self.is_true(name) and (again or not loan.handed)):
                return False
        siblings = self._siblings(names, fresh) if owner is not None else []
        if siblings and not whole:
            return False
        taken = [*fresh, *siblings]
        ours = {name: managed or name in siblings for name in taken}  # nobody put those on a stub
        if not all(self._may_take(owner, name, taken, ours[name]) for name in taken):
            return False
        for name in taken:
            listed = name in self.loans and self.loans[name].owner is None
            listed |= name in self.groups and name in fresh and not managed
            self.loans[name] = Loan(
                owner, self.life(name), handed=name in fresh, to_list=listed and owner is not None
            )
        for name in names:
            self.loans[name].handed, self.loans[name].waits = True, False
        return True

    def _siblings(self, names: list[str], fresh: list[str]) -> list[str]:
        """Who is on a host driver in a group that is to be lent."""
        mates = {mate for name in fresh for mate in self.mates(name)} - {*names, *self.gone}
        return sorted(m for m in mates if self.world()[m].driver not in {None, VFIO})

    def _may_take(self, owner: Owner | None, name: str, taken: list[str], managed: bool) -> bool:
        if name in self.loans and not self.is_true(name) and not self.is_void(name):
            return False
        if name in self.groups and not managed and self.world()[name].driver != VFIO:
            return False
        owners = {loan.owner for mate in self.mates(name) if (loan := self.loans.get(mate))}
        if owners - {None, owner} or (owner is None and owners - {None}):
            return False
        others = {*self.loans, *taken}
        return self.on.get(name) not in others and not any(
            self.on.get(other) == name for other in others
        )

    def reattach(self, owner: Owner, only: str | None = None) -> bool:
        """Give back all, or one; False when a guest keeps something."""
        mine = [n for n, loan in self.loans.items() if loan.owner == owner and only in {None, n}]
        done = True
        for name in mine:
            mates = [m for m in self.mates(name) if m in self.loans and m not in mine]
            mates = [m for m in mates if self.loans[m].owner is not None]
            if any(self.loans[mate].handed for mate in mates):
                self._leave(name)
            else:
                for one in (name, *mates):
                    done &= self._go_home(one)
        return done

    def _leave(self, name: str) -> None:
        loan = self.loans[name]
        if loan.to_list and not loan.waits:
            self.loans[name] = Loan(None, loan.life)
        else:
            loan.handed, loan.waits = False, True

    def _go_home(self, name: str) -> bool:
        loan = self.loans[name]
        if self.is_true(name) and self.is_held(name):
            loan.waits = False
            return False
        if loan.to_list and self.is_true(name):
            self.loans[name] = Loan(None, loan.life)
        else:
            del self.loans[name]
        return True

    def reattach_device(self, name: str) -> bool:
        loan = self.loans.get(name)
        if loan is None or loan.owner is not None:
            return False
        if any(self.loans[m].owner is not None for m in self.mates(name) if m in self.loans):
            return False
        del self.loans[name]
        return True

    def is_void(self, name: str) -> bool:
        """Whether a domain's device is gone: what is at its address now is anybody's."""
        loan = self.loans.get(name)
        return loan is not None and loan.owner is not None and not self.is_true(name)

    def end_void(self, names: list[str], known: Container[str]) -> None:
        """A call for what is there now, which failed later, has ended these loans."""
        for name in names:
            if self.is_void(name) and name not in known:
                del self.loans[name]

    def reset(self, name: str) -> bool:
        """Only whether it may be done: nothing stays of it, but a loan that is void has ended."""
        loan, void = self.loans.get(name), self.is_void(name)
        if name in self.gone:
            return False
        if loan is not None and not void and (loan.owner or not self.is_true(name)):
            return False
        if self.world()[name].driver not in {None, VFIO} or self.is_held(name):
            return False
        if any(self.loans[m].owner for m in self.mates(name) if m in self.loans):
            return False
        if void:
            del self.loans[name]
        return True

    def forget(self, name: str) -> bool:
        """It stays as it is, which is how it is found from now on."""
        if name not in self.loans:
            return False
        if name in self.groups and name not in self.gone:
            self.found[name] = self._now(name)
        del self.loans[name]
        owned = [m for m in self.mates(name) if m in self.loans and self.loans[m].owner]
        if not any(self.loans[mate].handed for mate in owned):
            for mate in owned:
                self._go_home(mate)
        return True

    def unplug(self, name: str) -> None:
        self.gone.add(name)

    def plug(self, name: str, card: Card) -> None:
        self.gone.remove(name)
        self.lives[name] = self.life(name) + 1
        self.found[name] = card
