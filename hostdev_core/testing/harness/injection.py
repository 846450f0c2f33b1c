"""The one way to inject a fault: a watcher of the host counts moments, and lets it happen at some."""

from collections.abc import Callable, Container
from itertools import count

Watcher = Callable[[str], None]  # for Host.watch, which tells it each moment
Fault = Callable[
    [str], None
]  # happens at a moment, which it is told; an OSError is the kernel's answer


class FromThenOn(Container[int]):
    """Every number from the first one on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= self._first


class Injector:
    """A watcher that lets a fault happen at the moments of these numbers, and keeps which they were.

    Only moments that begin with one of `kinds` count; the first of them is number 1.
    """

    def __init__(
        self, fault: Fault, numbers: Container[int], kinds: str | tuple[str, ...] = ""
    ) -> None:
        self.met: list[str] = []
        self._fault = fault
        self._wanted = numbers
        self._kinds = kinds
        self._numbers = count(1)

    def __call__(self, what: str) -> None:
        if what.startswith(self._kinds) and next(self._numbers) in self._wanted:
            self.met.append(what)
            self._fault(what)
