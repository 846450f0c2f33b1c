"""The disturbances by name: each injects its fault at the nth moment of a call, and checks the world."""

import errno
import signal
from collections.abc import Callable

from hostdev_core.testing.harness import card_swaps, kills, ledger_errors, signals
from hostdev_core.testing.harness.jobs import ERRNOS
from hostdev_core.testing.harness.trial import Trial
from hostdev_core.testing.harness.write_errors import (
    WriteFault,
    fail,
    fail_in_recovery,
    fail_twice,
    intrude,
    pretend,
    refuse,
    refuse_in_turn,
)

# Returns how many points that were; none when the call has no moment so late.
Disturbance = Callable[[Trial, int], int]


def _refusing(*names: str) -> Callable[[], WriteFault]:
    return lambda: refuse(*(getattr(errno, name) for name in names))


DISTURBANCES: dict[str, Disturbance] = {
    "process killed": kills.kill("process"),
    "worker killed": kills.kill("worker"),
    "waiting process killed": kills.kill("front"),
    "recoverers killed": kills.kill_recoverers,
    **{name: fail(_refusing(name)) for name in ERRNOS},
    "some errno": fail(refuse_in_turn(*(getattr(errno, name) for name in ERRNOS))),
    **{f"{a} and {b} from then on": fail(_refusing(a, b), on=True)
       for a, b in zip(ERRNOS, [*ERRNOS[1:], ERRNOS[0]], strict=True)},
    **{f"{name} twice": fail_twice(_refusing(name)) for name in ERRNOS},
    **{f"{name} in recovery": fail_in_recovery(_refusing(name)) for name in ERRNOS},
    "no effect": fail(lambda: pretend),
    "no effect from then on": fail(lambda: pretend, on=True),
    "no effect in recovery": fail_in_recovery(lambda: pretend),
    "another driver": fail(lambda: intrude),
    "another driver in recovery": fail_in_recovery(lambda: intrude),
    "card swapped": card_swaps.swap,
    "ledger full": ledger_errors.fail(ledger_errors.Full),
    "ledger full once": ledger_errors.fail(ledger_errors.FullOnce),
    "ledger read-only": ledger_errors.fail(ledger_errors.ReadOnly),
    "ledger damaged": ledger_errors.fail(ledger_errors.Damaged),
    "ledger newer": ledger_errors.fail(ledger_errors.Newer),
    "ledger locked": ledger_errors.fail(ledger_errors.Locked),
    "SIGINT": signals.stop_command(signal.SIGINT),
    "SIGTERM": signals.stop_command(signal.SIGTERM),
    "SIGHUP": signals.stop_command(signal.SIGHUP),
    "two signals": signals.stop_command_twice,
    "KeyboardInterrupt": signals.interrupt_call,
}  # fmt: skip
