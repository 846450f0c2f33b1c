"""Defer Python's signal handlers while work is under way that must not be left half way.

CPython calls a handler in the main thread between any two bytecode instructions, those of a `finally`
block too. A handler that raises there (KeyboardInterrupt) leaves descriptors open and locks taken for as
long as the exception is kept, since its traceback keeps the frames.
"""

# The functions below those of `signal`, which make an enum's member of each handler: they are asked about
# every signal at every block, and a block stands around every transaction.
import _signal  # type: ignore[import-not-found]  # typeshed has no stub of it
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from types import FrameType, TracebackType
from typing import Any

_c: Any = _signal
Handler = Callable[[int, FrameType | None], object]
_NUMBERS = range(1, signal.SIGSYS + 1)  # few programs handle the real-time signals above
_INTERRUPT = int(signal.SIGINT)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a command or a worker to stop."""


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
        handlers: Iterable[Any] = map(_c.getsignal, _NUMBERS)
        for number, handler in zip(_NUMBERS, handlers, strict=True):
            if type(handler) is not int and handler is not None:  # SIG_DFL, SIG_IGN; not Python's
                # Noted first: a signal may arrive as soon as its handler is replaced.
                self._handlers[number] = self._replaced[number] = handler
                _c.signal(number, self)

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
                if _c.getsignal(number) is self:  # the block may have set another one meanwhile
                    _c.signal(number, handler)
                self._replaced.pop(number, None)
        finally:
            if self._replaced:  # a handler raised above: go on with the rest, then let it through
                self._restore_handlers()

    def _call(self, number: int) -> None:
        # Called as a function: raising the signal again would write a second byte for it to a wakeup
        # descriptor (signal.set_wakeup_fd).
        self._handlers[number](number, None)


class signals_deferred(ContextDecorator):  # noqa: N801 - a context manager, named as those of contextlib
    """Defer signal handlers to the end of the block; `as` gives a function that calls those now due.

    For short work: the program answers no signal meanwhile. In other threads than the main one, where
    Python calls no handler, this does nothing; nor does it in a block whose handlers are deferred already.
    """

    def __init__(self) -> None:
        self._deferred: DeferredSignals | None = None

    def _recreate_cm(self) -> "signals_deferred":
        return signals_deferred()  # as a decorator: a new one for each call

    def __enter__(self) -> Callable[[], None]:
        if (
            threading.current_thread() is not threading.main_thread()
            # Handled by all programs but few: the block around has it, and all the others with it.
            or type(_c.getsignal(_INTERRUPT)) is DeferredSignals
        ):
            return _nothing
        deferred = self._deferred = DeferredSignals()
        try:
            deferred.begin()
        except BaseException:
            deferred.end()
            raise
        return deferred.deliver

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._deferred is not None:
            self._deferred.end()


def _nothing() -> None:
    pass
