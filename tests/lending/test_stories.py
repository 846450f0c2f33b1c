"""Any order of calls, failures, deaths and pulled cards: the host and the ledger are as the model says.

HOSTDEV_EXAMPLES=500 tries that many stories, each time others; without it they are few and the same.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from hostdev_core import (
    Connection,
    KernelError,
    ReattachError,
)
from hostdev_core.testing.harness.injection import Injector
from tests.helpers.faults import die, fail
from tests.helpers.processes import connect
from tests.lending.stories_calls import (
    LOOSE,
    Calls,
    cards,
    domains,
    moments,
    often,
    wishes,
)
from tests.lending.stories_host import CARDS, GROUPS, add_card
from tests.lending.stories_model import VFIO, Card, Model, Owner


class HostMachine(Calls):
    """Cards that come and go, guests, writes that fail, processes that die."""

    # The hardware and the guests.
    @rule(name=st.sampled_from(LOOSE), driver=st.sampled_from(("igb", VFIO)))
    def pull_or_plug(self, name: str, driver: str) -> None:
        """Pull a card out; plug the same in, or another one, which may be found on the stub."""
        if name not in self.model.gone:
            if not self.model.is_held(name):
                self.host.unplug(name)
                self.model.unplug(name)
            return
        other = (self.model.life(name) + 1) % 2
        override = VFIO if driver == VFIO else "(null)"
        card = Card(driver, override) if other else CARDS[name]
        add_card(self.host, name, card)
        self.model.plug(name, card)

    @precondition(lambda self: not self.model.loans.keys().isdisjoint(LOOSE))
    @rule(driver=st.sampled_from(("igb", VFIO)), data=st.data())
    def exchange(self, driver: str, data: st.DataObject) -> None:
        """Another card is where one was taken."""
        name = data.draw(st.sampled_from([name for name in LOOSE if name in self.model.loans]))
        if name not in self.model.gone and not self.model.is_held(name):
            self.pull_or_plug(name, driver)
            self.pull_or_plug(name, driver)

    @rule(name=cards)
    def start_guest(self, name: str) -> None:
        loan = self.model.loans.get(name)
        if loan is None or loan.owner is None or self.model.is_held(name):
            return
        if loan.handed and self.model.is_true(name):
            self.guests[name] = stack = ExitStack()
            stack.enter_context(self.host.hold(name))
            self.model.held.add(GROUPS[name])

    @precondition(lambda self: self.guests)
    @rule(data=st.data())
    def stop_some_guest(self, data: st.DataObject) -> None:
        self.stop_guest(data.draw(st.sampled_from(sorted(self.guests))))

    # What fails, and who dies.
    @rule(owner=domains, names=wishes, managed=often, whole=st.booleans(), moment=moments)
    def prepare_fails(
        self, owner: Owner, names: list[str], managed: bool, whole: bool, moment: int
    ) -> None:
        """One write is refused: all is undone."""
        call, act = self.prepare_of(owner, names, managed, whole, False)
        conn = self.conns[owner[0]]
        conn.host.watch(Injector(fail, {moment}, "before write"))
        notes: list[str] = []
        try:
            self.do(call, lambda: act(conn))
        except KernelError as error:
            notes = getattr(error, "__notes__", [])
            self.model.end_void(names, self.records())
        finally:
            conn.host.watch(None)
        assert notes == []

    @precondition(lambda self: not self.guests)
    @rule(owner=domains, moment=moments)
    def reattach_fails(self, owner: Owner, moment: int) -> None:
        """One write is refused: that device is stuck, and goes home next time."""
        conn = self.conns[owner[0]]
        conn.host.watch(Injector(fail, {moment}, "before write"))
        try:
            conn.reattach_hostdevs(owner[1])
        except ReattachError:
            assert any(record.stuck for record in self.host.ledger.records())
        finally:
            conn.host.watch(None)
        conn.recover()
        self.model.reattach(owner)

    @rule(owner=domains, names=wishes, managed=often, whole=st.booleans(), moment=moments)
    def prepare_dies(
        self, owner: Owner, names: list[str], managed: bool, whole: bool, moment: int
    ) -> None:
        call, act = self.prepare_of(owner, names, managed, whole, False)
        self.die(owner[0], call, act, moment)
        self.model.end_void(names, self.records())

    @precondition(lambda self: not self.guests)
    @rule(owner=domains, moment=moments)
    def reattach_dies(self, owner: Owner, moment: int) -> None:
        self.die(
            owner[0],
            lambda model: model.reattach(owner),
            lambda conn: conn.reattach_hostdevs(owner[1]),
            moment,
        )

    def die(
        self,
        driver: str,
        call: Callable[[Model], bool],
        act: Callable[[Connection], object],
        moment: int,
    ) -> None:
        """A process dies in the middle of a call: with the next recovery all of it or nothing is done."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            pid = os.fork()
        if pid == 0:
            try:
                conn = connect(self.host.root, f"{driver}:///system")
                conn.host.watch(Injector(die, {moment}))
                act(conn)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.conns["other"].recover()
        wanted = self.model.copy()
        if call(wanted) and self.records() == wanted.records():
            self.model = wanted


EXAMPLES = int(os.environ.get("HOSTDEV_EXAMPLES", "0"))


class TestHostMachine(HostMachine.TestCase):  # type: ignore[misc, name-defined]
    """Some stories."""

    settings = settings(
        max_examples=8,
        stateful_step_count=25,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )


@pytest.mark.long
class TestHostMachineAtLength(HostMachine.TestCase):  # type: ignore[misc, name-defined]
    """Many; with HOSTDEV_EXAMPLES others each time, and longer ones."""

    settings = settings(
        TestHostMachine.settings,
        max_examples=EXAMPLES or 40,
        stateful_step_count=40 if EXAMPLES else 25,
        derandomize=not EXAMPLES,
    )
