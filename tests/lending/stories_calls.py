"""The calls of the stories, and what must be true after each."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hostdev_core import (
    Connection,
    DeviceError,
    Domain,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    StateError,
    USBHostdev,
)
from hostdev_core.runtime import operation as operations
from tests.helpers.processes import connect
from tests.lending.stories_host import BARE, CARDS, GROUPS, PF, STICK, XHCI, make_host
from tests.lending.stories_model import Card, Model, Owner
from tests.sample import DISK, NIC

LOOSE = (NIC, DISK, BARE)
DRIVERS = ("qemu", "other")
domains = st.tuples(st.sampled_from(DRIVERS), st.sampled_from(("vm1", "vm2")))
cards = st.sampled_from(sorted(CARDS))
wishes = st.lists(st.sampled_from([*CARDS, STICK]), min_size=1, max_size=3, unique=True)
often = st.sampled_from((True, True, True, False))
moments = st.integers(1, 25)


class Calls(RuleBasedStateMachine):
    """Two hypervisors on one host, and the model that each call is held against."""

    def __init__(self) -> None:
        super().__init__()
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(dir=shared)
        self.host = make_host(f"{self.folder}/host")
        self.conns = {
            name: connect(self.host.root, f"{name}:///system", worker=False) for name in DRIVERS
        }
        self.model = Model(dict(CARDS), dict(GROUPS), frozenset({PF}), {STICK: XHCI})
        self.guests: dict[str, ExitStack] = {}
        self.before = self.host.snapshot()

    def teardown(self) -> None:
        """Everything is given back: the machine is as it was found."""
        try:
            for name in [*self.guests]:
                self.stop_guest(name)
            for driver, domain in [(d, n) for d in DRIVERS for n in ("vm1", "vm2")]:
                self.reattach((driver, domain))
            for name in [n for n, loan in self.model.loans.items() if loan.owner is None]:
                self.reattach_device("qemu", name)
            assert self.host.ledger.records() == []
            self.the_world_agrees()
            if not self.model.lives and not self.forgotten and not self.model.gone:
                assert self.host.snapshot() == self.before
        finally:
            for conn in self.conns.values():
                conn.close()
            shutil.rmtree(self.folder)

    forgotten = False

    def do(self, call: Callable[[Model], bool], act: Callable[[], object]) -> None:
        """The model and the host agree whether it is done or refused; a refusal changes nothing."""
        wanted = self.model.copy()
        done = call(wanted)
        refusal = None
        try:
            act()
        except (DeviceError, StateError) as error:
            refusal = error
        assert done == (refusal is None), refusal or "the model refuses that"
        if done:
            self.model = wanted

    def prepare_of(
        self, owner: Owner, names: list[str], managed: bool, whole: bool, again: bool
    ) -> tuple[Callable[[Model], bool], Callable[[Connection], object]]:
        hostdevs = [
            USBHostdev(port=name) if name == STICK else PCIHostdev(address=name, managed=managed)
            for name in names
        ]
        flags = PrepareFlags.WHOLE_GROUP if whole else PrepareFlags.NONE
        flags |= PrepareFlags.ALLOW_SAME_OWNER if again else PrepareFlags.NONE
        domain = Domain(owner[1], hostdevs)
        return (
            lambda model: model.prepare(owner, names, managed=managed, whole=whole, again=again),
            lambda conn: conn.prepare_hostdevs(domain, flags),
        )

    @rule(owner=domains, names=wishes, managed=often, whole=st.booleans(), again=st.booleans())
    def prepare(
        self, owner: Owner, names: list[str], managed: bool, whole: bool, again: bool
    ) -> None:
        call, act = self.prepare_of(owner, names, managed, whole, again)
        self.do(call, lambda: act(self.conns[owner[0]]))

    @rule(owner=domains, names=wishes, whole=st.booleans())
    def plan(self, owner: Owner, names: list[str], whole: bool) -> None:
        """A plan is refused as a prepare would be, and changes nothing."""
        call, _ = self.prepare_of(owner, names, True, whole, False)
        flags = PrepareFlags.WHOLE_GROUP if whole else PrepareFlags.NONE
        hostdevs = [USBHostdev(port=n) if n == STICK else PCIHostdev(address=n) for n in names]
        now = self.model
        domain = Domain(owner[1], hostdevs)
        self.do(call, lambda: self.conns[owner[0]].plan(domain, flags))
        self.model = now

    @rule(owner=domains)
    def reattach(self, owner: Owner) -> None:
        self.give_back(owner, None)

    @rule(owner=domains, name=st.sampled_from([*CARDS, STICK]))
    def reattach_one(self, owner: Owner, name: str) -> None:
        self.give_back(owner, name)

    def give_back(self, owner: Owner, only: str | None) -> None:
        conn, done = self.conns[owner[0]], self.model.reattach(owner, only)
        problem = None
        try:
            if only is None:
                conn.reattach_hostdevs(owner[1])
            elif only == STICK:
                conn.reattach_usb_hostdevs(owner[1], [USBHostdev(port=only)])
            else:
                conn.reattach_pci_hostdevs(owner[1], [PCIHostdev(address=only)])
        except ReattachError as error:
            problem = error
        assert done == (problem is None), problem or "a guest has it"

    @rule(driver=st.sampled_from(DRIVERS), name=cards)
    def detach(self, driver: str, name: str) -> None:
        self.do(
            lambda model: model.prepare(None, [name], managed=True, whole=False, again=True),
            lambda: self.conns[driver].detach_device(name),
        )

    @rule(driver=st.sampled_from(DRIVERS), name=cards)
    def reattach_device(self, driver: str, name: str) -> None:
        self.do(
            lambda model: model.reattach_device(name),
            lambda: self.conns[driver].reattach_device(name),
        )

    @rule(driver=st.sampled_from(DRIVERS), name=st.sampled_from((*CARDS, *LOOSE, *LOOSE)))
    def reset(self, driver: str, name: str) -> None:
        self.do(lambda model: model.reset(name), lambda: self.conns[driver].reset_device(name))

    @rule(driver=st.sampled_from(DRIVERS), name=st.sampled_from([*CARDS, STICK]))
    def forget(self, driver: str, name: str) -> None:
        if not self.model.is_held(name):
            self.forgotten |= name in self.model.loans
            self.do(
                lambda model: model.forget(name), lambda: self.conns[driver].forget_device(name)
            )

    @rule(driver=st.sampled_from(DRIVERS))
    def recover(self, driver: str) -> None:
        """Nobody has died: nothing is left over."""
        assert self.conns[driver].recover() == ()

    @rule()
    def reload(self) -> None:
        """Told of is what is gone or another card, and nothing else."""
        drifts = {d.address for d in self.conns["qemu"].reload() if d.kind == "pci"}
        resting = {n for n, loan in self.model.loans.items() if n in CARDS and not loan.waits}
        assert drifts == {name for name in resting if not self.model.is_true(name)}

    def stop_guest(self, name: str) -> None:
        self.guests.pop(name).close()
        self.model.held.remove(GROUPS[name])

    # What must be true after each step.
    def records(self) -> dict[str, tuple[Owner | None, str, bool]]:
        return {
            r.address: (
                (r.owner.driver, r.owner.domain) if r.owner else None,
                str(r.phase),
                r.handed,
            )
            for r in self.host.ledger.records()
        }

    @invariant()
    def the_ledger_agrees(self) -> None:
        records = self.host.ledger.records()
        assert self.records() == self.model.records()
        assert [r for r in records if r.op or r.stuck] == []
        owners = {(r.group, r.owner) for r in records if r.owner and r.group is not None}
        assert len({group for group, _ in owners}) == len(owners), "two owners in a group"

    @invariant()
    def the_world_agrees(self) -> None:
        snapshot, wanted = self.host.snapshot(), self.model.world()
        found = {
            name: Card(*snapshot[name].values())  # type: ignore[arg-type]
            for name in GROUPS
            if name in snapshot
        }
        assert found == wanted

    @invariant()
    def nobody_is_at_work(self) -> None:
        assert operations.list_ids(self.host.state_dir) == []
