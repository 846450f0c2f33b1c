"""What signal handlers raise (KeyboardInterrupt) waits while something must not be left half way.

Python calls them in the main thread between any two steps, those of a `finally` too. What is left
there stays open, with its locks, for as long as anybody keeps the exception.
"""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class Delay:
    """In place of all handlers: notes the signals that come, and passes them on once it has ended.

    `came` are those that wait.
    """

    def __init__(self) -> None:
        self._former: dict[int, Handler] = {}
        self._swapped: dict[int, Handler] = {}
        self.came: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came.add(number)

    def begin(self) -> None:
        for number in range(1, signal.SIGSYS + 1):  # the real-time ones are few people's
            if callable(handler := signal.getsignal(number)):
                self._former[number] = self._swapped[number] = handler
                signal.signal(number, self)

    def end(self) -> None:
        """Every signal arrives, although the handler of another one raises, or one comes right now."""
        error = self._pass_on()
        try:
            self._put_back()
            late = self._pass_on()
        finally:
            if error is not None:
                raise error
        if late is not None:
            raise late

    def deliver(self) -> None:
        """Call the handlers of what came; what they raise is raised here, and the rest waits on."""
        while self.came:
            self._call(self.came.pop())

    def _pass_on(self) -> BaseException | None:
        """Call all handlers of what came; what the last of them raised that did."""
        error: BaseException | None = None
        while self.came:
            try:
                self.deliver()
            except BaseException as raised:
                error = raised
        return error

    def _put_back(self) -> None:
        """Those that are back may raise, at any line."""
        try:
            while self._swapped:
                number, handler = next(iter(self._swapped.items()))
                if signal.getsignal(number) is self:
                    signal.signal(number, handler)
                self._swapped.pop(number, None)
        finally:
            if self._swapped:
                self._put_back()

    def _call(self, number: int) -> None:
        """Not by another signal: who has a byte written for each (set_wakeup_fd) has had this one's."""
        self._former[number](number, None)


@contextmanager
def held_back() -> Generator[Callable[[], None]]:
    """Let signals wait for the end of the block; what this gives lets those in that have come.

    For short work. In another thread than the main one, which no handler runs in, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    delay = Delay()
    try:
        delay.begin()
        yield delay.deliver
    finally:
        delay.end()
