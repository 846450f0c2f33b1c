import copy
import inspect
import pickle
from typing import Any

import pytest

from hostdev_core import HostdevError, Refusal, UsedBy, errors
from hostdev_core.errors import ReattachError
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import UnfinishedError
from hostdev_core.registry.entry_points import Origin
from hostdev_core.runtime.lane_report import CancelledError

pytestmark = pytest.mark.quick_cases

FACTS: dict[str, Any] = {
    "driver": "qemu",
    "uri": "qemu:///system",
    "plugin": "mine",
    "hook": "hostdev_check",
    "origin": Origin("mine 1.0", "mine:plugin", "/site-packages/mine.py"),
    "refusals": (Refusal("root", "0000:01:00.0", "it is mounted", ("/dev/sda1",)),),
    "device": "0000:01:00.0",
    "used_by": UsedBy("vm1", "qemu", "qemu:///system", "uuid"),
    "holders": ("qemu (pid 12)",),
    "culprits": ("0000:01:00.1",),
    "rule": "lent",
    "evidence": ("qemu has /dev/vfio/8 open",),
    "path": "/sys/x",
    "value": "1",
    "errno": 16,
    "record": Record("pci", "0000:01:00.0", Phase.ACTIVE, "qemu"),
}


def all_kinds(kind: type[HostdevError] = HostdevError) -> list[type[HostdevError]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in all_kinds(child))]


def make(kind: type[HostdevError]) -> HostdevError:
    if kind is ReattachError:
        return ReattachError(
            "two failed", [make(errors.DeviceInUseError), make(errors.KernelError)]
        )
    wanted = inspect.signature(kind.__init__).parameters
    facts = {
        name: FACTS[name]
        for name, parameter in wanted.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return kind(f"a {kind.__name__}", **facts)


def facts_of(error: BaseException) -> dict[str, Any]:
    facts = {key: value for key, value in vars(error).items() if key != "_exceptions"}
    if isinstance(error, ExceptionGroup):
        facts["exceptions"] = [(str(e), facts_of(e)) for e in error.exceptions]
    return facts


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickle(kind: type[HostdevError]) -> None:
    error = make(kind)
    error.add_note("0000:02:00.0 could not be given back")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert again.__notes__ == error.__notes__
        assert facts_of(again) == facts_of(error)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = errors.__doc__ or ""
    public = {kind for kind in all_kinds() if kind.__module__ == "hostdev_core.errors"}
    for kind in public:
        assert kind.__name__ in drawn, kind
    assert {CancelledError, UnfinishedError} <= {*all_kinds()} - public


def test_errors_are_what_the_standard_library_has_for_them() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.NotPermittedError, PermissionError)
    assert issubclass(errors.ReattachError, ExceptionGroup)


def test_a_reattach_error_can_be_split() -> None:
    error = make(ReattachError)
    assert isinstance(error, ReattachError)
    match, rest = error.split(errors.DeviceInUseError)
    assert isinstance(match, ReattachError)
    assert isinstance(rest, ReattachError)
    assert [type(e) for e in rest.exceptions] == [errors.KernelError]
