"""`Connection.watch`: the events of a host as an iterator, for several threads, until it is closed."""

import os
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    ConnectionClosedError,
    Event,
    EventKind,
    InputError,
    NotPermittedError,
    StateError,
    Watch,
)
from hostdev_core.kernel.inotify import OPENED, Inotify
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import prepare, reattach, run
from tests.helpers.watching import PATIENCE, rest, until
from tests.sample import DISK, NIC, connect


def kinds(events: list[Event], device: str = NIC) -> list[EventKind]:
    return [event.kind for event in events if event.device == device]


def test_events_are_values(conn: Connection) -> None:
    with conn.watch() as events:
        conn.detach_device(NIC)
        seen = until(events, EventKind.DETACHED, NIC)
        assert seen[-1].state == "inactive"
        assert (seen[-1].bus, seen[-1].owner, seen[-1].initial) == ("pci", None, False)
        assert all(before.time <= after.time for before, after in pairwise(seen))
        bound = [event.kernel_driver for event in seen if event.kind is EventKind.BOUND]
        assert bound == ["vfio-pci"]


def test_without_an_event_the_time_is_over(conn: Connection) -> None:
    with conn.watch() as events:
        assert events.next(timeout=0) is None
        assert events.next(timeout=0.01) is None
        for timeout in (-1, float("nan"), "soon"):
            with pytest.raises(InputError, match="is no number of seconds from 0 on"):
                events.next(timeout=timeout)  # type: ignore[arg-type]


def test_nothing_is_lost_between_two_calls(host: SimulatedHost, conn: Connection) -> None:
    with conn.watch() as events:
        run(prepare, host.root, "vm1", [NIC])
        assert until(events, EventKind.LENT, NIC)[-1].owner is not None
        run(reattach, host.root, "vm1")
        assert EventKind.RETURNED in kinds(rest(events))


def test_what_was_undone_meanwhile_leaves_no_event(host: SimulatedHost, conn: Connection) -> None:
    with conn.watch() as events:
        run(prepare, host.root, "vm1", [NIC])
        run(reattach, host.root, "vm1")
        assert rest(events) == []


def test_closing_from_another_thread_ends_every_reader(conn: Connection) -> None:
    events = conn.watch()
    ended: list[list[Event]] = []

    def read() -> None:
        ended.append([*events])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    events.close()
    events.close()
    for reader in readers:
        reader.join(PATIENCE)
    assert ended == [[], [], []]
    assert events.is_closed
    with pytest.raises(ConnectionClosedError, match="the watch is closed"):
        events.next()


def test_each_event_goes_to_one_of_several_readers(conn: Connection) -> None:
    events = conn.watch(state=True)
    took: list[Event] = []
    done = threading.Barrier(3)

    def read() -> None:
        for event in events:
            took.append(event)
            if event.kind is EventKind.DETACHED:
                events.close()
        done.wait(PATIENCE)

    for _ in range(2):
        threading.Thread(target=read).start()
    conn.detach_device(NIC)
    done.wait(PATIENCE)
    assert len({*took}) == len(took)
    assert {event.device for event in took if event.initial} == {NIC, DISK}


def test_the_end_of_the_connection_ends_it(host: SimulatedHost) -> None:
    with connect(host) as conn:
        events = conn.watch()
        ended = threading.Event()
        threading.Thread(target=lambda: [*events] or ended.set()).start()
    assert ended.wait(PATIENCE)
    with pytest.raises(ConnectionClosedError):
        conn.watch()


def test_its_descriptors_are_closed(host: SimulatedHost, conn: Connection) -> None:
    conn.watch().close()
    before = os.listdir("/proc/self/fd")
    events = conn.watch()
    assert len(os.listdir("/proc/self/fd")) > len(before)
    events.close()
    assert os.listdir("/proc/self/fd") == before
    conn.watch()  # dropped
    assert os.listdir("/proc/self/fd") == before


def test_a_forked_process_has_no_part_in_it(conn: Connection) -> None:
    events = conn.watch()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            events.next(timeout=0)
        except StateError:
            events.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    conn.detach_device(NIC)
    until(events, EventKind.DETACHED, NIC)
    events.close()


def test_a_read_only_connection_may_watch(host: SimulatedHost) -> None:
    with connect(host, read_only=True) as conn, conn.watch() as events:
        assert not os.path.exists(host.state_dir)
        run(prepare, host.root, "vm1", [NIC])  # makes the directory
        until(events, EventKind.LENT, NIC)


@pytest.fixture
def lent(host: SimulatedHost) -> SimulatedHost:
    run(prepare, host.root, "vm1", [NIC])
    return host


def test_a_state_directory_that_is_removed_and_made_again(lent: SimulatedHost) -> None:
    with Watch(lent) as events:
        shutil.rmtree(lent.state_dir)
        assert until(events, EventKind.RETURNED, NIC)[-1].state == "free"
        run(prepare, lent.root, "vm2", [DISK])
        until(events, EventKind.LENT, DISK)
        run(reattach, lent.root, "vm2")
        until(events, EventKind.RETURNED, DISK)


def test_a_state_directory_that_is_exchanged(lent: SimulatedHost) -> None:
    with Watch(lent) as events:
        os.rename(lent.state_dir, f"{lent.state_dir}.away")
        until(events, EventKind.RETURNED, NIC)
        os.rename(f"{lent.state_dir}.away", lent.state_dir)
        until(events, EventKind.LENT, NIC)
        run(reattach, lent.root, "vm1")
        until(events, EventKind.RETURNED, NIC)


def test_a_state_directory_whose_parents_come_later(host: SimulatedHost) -> None:
    host.state_dir = host.path("run/some/where/hostdev")
    with connect(host) as conn, Watch(host) as events:
        shutil.rmtree(host.path("run/some"), ignore_errors=True)
        assert events.next(timeout=0) is None
        conn.detach_device(NIC)
        until(events, EventKind.DETACHED, NIC)


def test_the_ledger_is_not_opened_for_what_is_no_change_of_it(lent: SimulatedHost) -> None:
    with Watch(lent) as events, _opens(f"{lent.state_dir}/state.db") as opens:
        lent.unplug(DISK)
        until(events, EventKind.REMOVED, DISK)
        Path(lent.state_dir, "turn").touch()
        Path(lent.state_dir, "else").touch()
        assert rest(events) == []
        assert opens.read() == []
        run(reattach, lent.root, "vm1")
        opens.read()
        until(events, EventKind.RETURNED, NIC)
        assert opens.read()


class _opens:  # noqa: N801 - a context manager
    """Hear of each time that a file is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Inotify:
        self.inotify = Inotify()
        self.inotify.add(self.path, OPENED)
        return self.inotify

    def __exit__(self, *error: object) -> None:
        self.inotify.close()


def test_when_too_much_has_happened_all_is_looked_at_again(lent: SimulatedHost) -> None:
    """The kernel keeps so many notices and no more: those of the return come after them, and are lost."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with Watch(lent) as events:
        for number in range(limit // 2 + 2):  # two files by turns, since equal notices are one
            os.close(os.open(lent.path("dev/vfio/" + ("1", "vfio")[number % 2]), os.O_RDONLY))
        run(reattach, lent.root, "vm1")
        lent.unplug(DISK)
        seen = rest(events)
        assert EventKind.RETURNED in kinds(seen)
        assert EventKind.REMOVED in kinds(seen, DISK)
        run(prepare, lent.root, "vm1", [NIC])
        until(events, EventKind.LENT, NIC)


def test_a_ledger_that_cannot_be_read_is_told_and_tried_again(lent: SimulatedHost) -> None:
    database, kept = Path(lent.state_dir, "state.db"), Path(lent.state_dir, "kept.db")
    with Watch(lent) as events:
        os.rename(database, kept)
        database.touch(0o600)
        for _ in range(2):
            with pytest.raises(StateError, match="is empty"):
                events.next(timeout=0)
        os.rename(kept, database)
        assert events.next(timeout=0) is None
        run(reattach, lent.root, "vm1")
        until(events, EventKind.RETURNED, NIC)


def test_who_may_not_read_the_ledger_is_told_at_once(lent: SimulatedHost) -> None:
    other = lent.as_user(65534)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotPermittedError, match="run as root"):
        Watch(other)
    assert os.listdir("/proc/self/fd") == before
