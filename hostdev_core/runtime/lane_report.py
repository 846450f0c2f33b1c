"""What came of lanes: their results, their errors, and those that were left behind."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from hostdev_core.errors import HostdevError, KernelTimeoutError

if TYPE_CHECKING:
    from hostdev_core.runtime.lanes import Lane

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class CancelledError(HostdevError):
    """Another lane failed, or this one is overdue: its job stops before the next step, and undoes."""


class LaneReport(Generic[K, T]):
    """The results and errors of the lanes of one `run_lanes`, by key; `late` are those left behind.

    `unstarted` are those of the ended ones whose job never began: no thread, or no kernel log for it.
    `interrupted` is the exception of the waiting thread (KeyboardInterrupt, or a signal handler's): the
    lanes were told to stop, and their results and errors are here all the same.
    """

    def __init__(self, lanes: "dict[K, Lane]", interrupted: BaseException | None) -> None:
        ended = {key: lane for key, lane in lanes.items() if lane.ended and not lane.failed_late}
        self.results: dict[K, T] = {
            key: lane.result for key, lane in ended.items() if lane.error is None
        }
        self.errors: dict[K, BaseException] = {
            key: lane.error for key, lane in ended.items() if lane.error is not None
        }
        self.unstarted = {key for key, lane in ended.items() if not lane.has_begun}
        self.late = {key: lane for key, lane in lanes.items() if key not in ended}
        self.keys = lanes.keys()
        self.interrupted = interrupted


def raise_first(report: LaneReport[K, T]) -> None:
    """Raise the exception that interrupted the lanes, or their first error, CancelledError last of all."""
    if report.interrupted is not None:
        raise report.interrupted
    # A CancelledError is the consequence of another lane's failure, which tells more.
    errors = sorted(report.errors.values(), key=lambda error: isinstance(error, CancelledError))
    for error in errors:
        raise error
    for lane in report.late.values():
        raise KernelTimeoutError(
            f"{lane.doing}: has not returned in time", path=lane.path, value=""
        )
