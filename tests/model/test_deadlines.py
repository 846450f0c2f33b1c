"""Deadlines are checked when the connection is opened, not when the kernel hangs."""

from typing import Any

import pytest

from hostdev_core import Deadlines, InputError, Registry, open_connection
from hostdev_core.simulated import SimulatedHost

pytestmark = pytest.mark.quick_cases


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), True, "30", None])
def test_what_is_no_deadline(host: SimulatedHost, registry: Registry, seconds: Any) -> None:
    with pytest.raises(InputError, match=r"deadline bind=.* is no number of seconds above 0"):
        open_connection(
            "qemu:///system", host=host, registry=registry, deadlines=Deadlines(bind=seconds)
        )
    assert host.deadlines == Deadlines()


def test_deadlines_have_their_names(host: SimulatedHost, registry: Registry) -> None:
    with pytest.raises(InputError, match=r"wanted Deadlines\(unbind=60\)"):
        open_connection("qemu:///system", host=host, registry=registry, deadlines=60)  # type: ignore[arg-type]
    assert host.deadlines == Deadlines()
