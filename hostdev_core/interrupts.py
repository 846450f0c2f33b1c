"""What signal handlers raise (KeyboardInterrupt) waits while something must not be left half way.

Python calls them in the main thread between any two steps, those of a `finally` too. What is left
there stays open, with its locks, for as long as anybody keeps the exception.
"""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


class Delay:
    """In place of all handlers: notes the signals that come, and passes them on once it has ended.

    `came` are those that wait.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._delaying = True
        self.came: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._delaying:
            self.came.add(number)
        else:  # interrupted before it had put the handler back
            self._handlers[number](number, frame)

    def begin(self) -> None:
        for number in range(1, signal.SIGSYS + 1):  # the real-time ones are few people's
            if callable(handler := signal.getsignal(number)):
                self._handlers[number] = handler
                signal.signal(number, self)

    def end(self) -> None:
        self._delaying = False
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler)
        self._send()

    def deliver(self) -> None:
        """Call the handlers of what came; what they raise is raised here, and the rest waits on."""
        while self.came:
            number = self.came.pop()
            self._handlers[number](number, None)

    def _send(self) -> None:
        """Each arrives, although the handler of another one raises."""
        if self.came:
            try:
                signal.raise_signal(self.came.pop())
            finally:
                self._send()


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
