"""What signal handlers raise waits for the end of a block, and every signal arrives."""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from hostdev_core.runtime import signals as interrupts
from hostdev_core.runtime.signals import signals_deferred

FIRST, SECOND = signal.SIGUSR1, signal.SIGUSR2


class ArrivedError(Exception):
    """What the handler of the first signal raises."""


@pytest.fixture
def came() -> Iterator[list[int]]:
    came: list[int] = []

    def first(number: int, frame: object) -> None:
        came.append(number)
        raise ArrivedError

    before = signal.signal(FIRST, first), signal.signal(SECOND, lambda n, f: came.append(n))
    yield came
    signal.signal(FIRST, before[0])
    signal.signal(SECOND, before[1])


def block(*numbers: int, then: Callable[[], object] = lambda: None) -> None:
    """These signals arrive in a block, which goes on."""
    with signals_deferred():
        for number in numbers:
            signal.raise_signal(number)
        then()


def test_a_signal_waits_for_the_end(came: list[int]) -> None:
    handler = signal.getsignal(FIRST)
    with pytest.raises(ArrivedError):
        block(FIRST, then=lambda: came.append(0))
    assert came == [0, FIRST]
    assert signal.getsignal(FIRST) is handler


def test_all_that_came_arrive_although_one_raises(came: list[int]) -> None:
    with pytest.raises(ArrivedError):
        block(SECOND, FIRST, FIRST)
    assert sorted(came) == [FIRST, SECOND]


def test_a_block_in_a_block(came: list[int]) -> None:
    def inner() -> None:
        block(FIRST)
        came.append(0)

    with pytest.raises(ArrivedError):
        block(then=inner)
    assert came == [0, FIRST]


def test_what_came_can_be_let_in(came: list[int]) -> None:
    with signals_deferred() as deliver:
        deliver()
        signal.raise_signal(FIRST)
        with pytest.raises(ArrivedError):
            deliver()
        deliver()
    assert came == [FIRST]


def test_an_error_of_the_block_stays(came: list[int]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block(then=fail)
    with pytest.raises(ArrivedError) as raised:
        block(FIRST, then=fail)
    assert isinstance(raised.value.__context__, ZeroDivisionError)


def test_another_thread_has_no_handlers(came: list[int]) -> None:
    def work() -> None:
        with signals_deferred():
            assert signal.getsignal(FIRST) is handler
        ends.append(1)

    handler, ends = signal.getsignal(FIRST), list[int]()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert ends == [1]


def strike(moment: int, number: int) -> Callable[[FrameType, str, object], Any]:
    """A trace function that sends a signal at this line, of all in which a block ends."""
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != interrupts.__file__:
            return None
        if (
            frame.f_code.co_name in {"end", "_restore_handlers"}
            and event == "line"
            and next(lines) == moment
        ):
            signal.raise_signal(number)
        return trace

    return trace


def test_one_that_comes_while_handlers_are_put_back_loses_no_other(came: list[int]) -> None:
    handlers = {number: signal.getsignal(number) for number in range(1, signal.SIGSYS + 1)}
    traced = sys.gettrace()
    for moment in itertools.count(1):
        came.clear()
        try:
            with signals_deferred():
                signal.raise_signal(SECOND)
                sys.settrace(strike(moment, FIRST))
        except ArrivedError:
            pass
        finally:
            sys.settrace(traced)
        assert {number: signal.getsignal(number) for number in handlers} == handlers
        if came == [SECOND]:
            break
        assert sorted(came) == [FIRST, SECOND]
    assert moment > 10


def test_who_has_a_byte_written_for_each_signal_has_one(came: list[int]) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writer)
    try:
        block(SECOND)
    finally:
        signal.set_wakeup_fd(before)
    assert os.read(reader, 16) == bytes([SECOND])
    os.close(reader)
    os.close(writer)
