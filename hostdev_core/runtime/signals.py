"""Defer Python's signal handlers while work is under way that must not be left half way.

CPython calls a handler in the main thread between any two bytecode instructions, those of a `finally`
block too. A handler that raises there (KeyboardInterrupt) leaves descriptors open and locks taken for as
long as the exception is kept, since its traceback keeps the frames.
"""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class DeferredSignals:
    """A handler in the place of all others: notes signals, and calls their handlers at the end.

    `pending` are the numbers of the signals that have arrived and whose handlers were not called yet.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._replaced: dict[int, Handler] = {}
        self.pending: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pending.add(number)

    def begin(self) -> None:
        """Take the place of every handler that is a Python function."""
        for number in range(
            1, signal.SIGSYS + 1
        ):  # few programs handle the real-time signals above
            if callable(handler := signal.getsignal(number)):
                # Noted first: a signal may arrive as soon as its handler is replaced.
                self._handlers[number] = self._replaced[number] = handler
                signal.signal(number, self)

    def end(self) -> None:
        """Put the handlers back and call those of all pending signals; raise the last error of these.

        None is lost, although the handler of another signal raises, or a signal arrives right now.
        """
        error = self._deliver_all()
        try:
            self._restore_handlers()
            late = self._deliver_all()  # of signals that arrived while handlers were put back
        finally:
            if error is not None:
                raise error
        if late is not None:
            raise late

    def deliver(self) -> None:
        """Call the handlers of pending signals; after one that raises, the others stay pending."""
        while self.pending:
            self._call(self.pending.pop())

    def _deliver_all(self) -> BaseException | None:
        """Call the handlers of all pending signals; return the last error that one raised."""
        error: BaseException | None = None
        while self.pending:
            try:
                self.deliver()
            except BaseException as raised:
                error = raised
        return error

    def _restore_handlers(self) -> None:
        """Put every handler back; those that are back may be called, and raise, at any line of this."""
        try:
            while self._replaced:
                number, handler = next(iter(self._replaced.items()))
                if signal.getsignal(number) is self:  # the block may have set another one meanwhile
                    signal.signal(number, handler)
                self._replaced.pop(number, None)
        finally:
            if self._replaced:  # a handler raised above: go on with the rest, then let it through
                self._restore_handlers()

    def _call(self, number: int) -> None:
        # Called as a function: raising the signal again would write a second byte for it to a wakeup
        # descriptor (signal.set_wakeup_fd).
        self._handlers[number](number, None)


@contextmanager
def signals_deferred() -> Generator[Callable[[], None]]:
    """Defer signal handlers to the end of the block; yield a function that calls those now due.

    For short work: the program answers no signal meanwhile. In other threads than the main one, where
    Python calls no handler, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    deferred = DeferredSignals()
    try:
        deferred.begin()
        yield deferred.deliver
    finally:
        deferred.end()
