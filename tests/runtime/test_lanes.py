import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.lane_report import CancelledError
from hostdev_core.runtime.lanes import MOST_LANES, Lane, run_lanes
from hostdev_core.runtime.operation import Operation


def test_lanes_run_in_parallel() -> None:
    barrier = threading.Barrier(MOST_LANES)
    jobs = {number: lambda lane: barrier.wait(60) for number in range(MOST_LANES)}
    assert len(run_lanes(jobs).results) == MOST_LANES


def test_more_lanes_than_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def job(lane: Lane) -> object:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return lane.key

    report = run_lanes(dict.fromkeys(range(3 * MOST_LANES), job))
    assert report.results == {number: number for number in range(3 * MOST_LANES)}
    assert most <= MOST_LANES


def test_no_lanes() -> None:
    report = run_lanes({})
    assert (report.results, report.errors, report.late) == ({}, {}, {})


def test_an_error_is_its_lanes_alone() -> None:
    def fail(lane: Lane) -> str:
        raise ZeroDivisionError("oops")

    report = run_lanes({"good": lambda lane: "done", "bad": fail})
    assert report.results == {"good": "done"}
    assert isinstance(report.errors["bad"], ZeroDivisionError)
    assert report.interrupted is None


def go_on(lane: Lane) -> None:
    """Step after step, until it is stopped."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        lane.check()
        time.sleep(0.001)


def test_all_or_none_stops_the_others_before_their_next_step() -> None:
    failed = threading.Event()

    def fail(lane: Lane) -> None:
        failed.set()
        raise ZeroDivisionError("oops")

    def work(lane: Lane) -> None:
        assert failed.wait(60)
        go_on(lane)

    report = run_lanes({"bad": fail, "other": work}, all_or_none=True)
    assert isinstance(report.errors["other"], CancelledError)


def late(
    release: threading.Event, then: Callable[[Lane], None], lanes: list[Lane] | None = None
) -> Callable[[Lane], None]:
    def job(lane: Lane) -> None:
        if lanes is not None:
            lanes.append(lane)
        lane.do("write", "some/path", 0.1, lambda: _wait(release))
        then(lane)

    return job


def _wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def _wait(event: threading.Event) -> None:
    assert event.wait(60)


def test_a_lane_that_is_overdue_is_left_behind_and_learns_of_it() -> None:
    release, ended = threading.Event(), threading.Event()
    seen: list[bool] = []

    def then(lane: Lane) -> None:
        seen.append(lane.overdue)
        try:
            with pytest.raises(CancelledError, match="after its deadline"):
                lane.check()
            seen.append(True)
        finally:
            ended.set()

    report = run_lanes({"late": late(release, then), "good": lambda lane: None})
    assert set(report.late) == {"late"}
    assert (report.late["late"].doing, report.late["late"].path) == ("write", "some/path")
    assert set(report.results) == {"good"}
    release.set()
    assert ended.wait(60)
    assert seen == [True, True]


def test_a_lane_that_is_back_late_before_the_others_have_ended_stays_late() -> None:
    """It clears up by itself: nobody else may take it for one that merely failed."""
    release = threading.Event()
    lanes: list[Lane] = []

    def long(lane: Lane) -> None:
        _wait_until(lambda: bool(lanes) and lanes[0].overdue)
        release.set()
        _wait_until(lambda: lanes[0].ended)

    report = run_lanes({"late": late(release, Lane.check, lanes), "long": long})
    assert set(report.late) == {"late"}
    assert report.errors == {}


def test_a_late_lane_keeps_its_operation_alive(tmp_path: Path) -> None:
    release, ended = threading.Event(), threading.Event()
    with Operation.start(str(tmp_path), "prepare vm1") as operation:
        report = run_lanes({"late": late(release, lambda lane: ended.set())}, operation=operation)
        assert set(report.late) == {"late"}
    assert operations.is_alive(str(tmp_path), operation.id)
    release.set()
    assert ended.wait(60)
    _wait_until(lambda: not operations.is_alive(str(tmp_path), operation.id))
    assert operations.list_ids(str(tmp_path)) == []


def test_an_interrupt_tells_the_lanes_to_stop_and_waits_for_them() -> None:
    """What a signal handler raises arrives in the waiting thread; the lanes' ends are not lost."""
    import os
    import signal

    stopped = threading.Event()

    def work(lane: Lane) -> None:
        os.kill(os.getpid(), signal.SIGUSR1) if lane.key == 0 else None
        try:
            go_on(lane)
        finally:
            time.sleep(0.05)
            stopped.set()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt("stop")

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        report = run_lanes({0: work, 1: work}, all_or_none=True)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert isinstance(report.interrupted, KeyboardInterrupt)
    assert stopped.is_set()
    assert {type(error) for error in report.errors.values()} == {CancelledError}


class Interrupting:
    """A key whose thread is interrupted while it is being started, the first time."""

    def __init__(self) -> None:
        self.interrupts = 1

    def __str__(self) -> str:
        self.interrupts -= 1
        if self.interrupts >= 0:
            raise KeyboardInterrupt
        return "one"


@pytest.mark.timeout(60)
def test_a_lane_whose_start_is_interrupted_is_started_again() -> None:
    """It would be waited for without end if it counted as running."""
    key = Interrupting()
    report = run_lanes({"first": lambda lane: 1, key: lambda lane: 2, "last": lambda lane: 3})
    assert report.results == {"first": 1, key: 2, "last": 3}
    assert isinstance(report.interrupted, KeyboardInterrupt)


@pytest.mark.timeout(60)
def test_with_all_or_none_a_lane_whose_start_is_interrupted_never_runs(tmp_path: Path) -> None:
    ran: list[object] = []
    with Operation.start(str(tmp_path), "try") as operation:
        report = run_lanes(
            {Interrupting(): lambda lane: ran.append(lane)}, operation=operation, all_or_none=True
        )
    assert isinstance(report.interrupted, KeyboardInterrupt)
    assert ran == []
    assert not operations.is_alive(str(tmp_path), operation.id)
