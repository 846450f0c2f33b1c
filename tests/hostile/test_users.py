"""Any text in the files that tell who uses a device: what cannot be understood is passed over."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostdev_core.inventory.users import find_dependents, find_users
from hostdev_core.simulated import SimulatedHost
from tests.helpers.users import (
    CARD,
    plug_in,
    put,
)

FILES = ("proc/self/mountinfo", "proc/swaps", "proc/net/route", "proc/net/if_inet6",
         "sys/class/net/eth5/flags", "sys/class/block/nvme0n1p1/dev")  # fmt: skip
WORDS = st.sampled_from(
    [
        "eth5",
        "/dev/nvme0n1",
        "-",
        "1",
        "259:1",
        "9" * 40 + ":1",
        "0x1003",
        "000200C0",
        "fd" * 16,
        "20",
        r"\040",
    ]
) | st.text(max_size=6)
LINES = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=3).map("\n".join)


@pytest.mark.long
@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(LINES, st.sampled_from(FILES))
def test_what_cannot_be_understood_is_passed_over(
    host: SimulatedHost, text: str, path: str
) -> None:
    """A timeout is told whatever the kernel's files look like."""
    if not host.sysfs.exists(f"bus/pci/devices/{CARD}"):
        plug_in(host)
    before = host.read_text(path)
    Path(host.path(path)).unlink(missing_ok=True)
    put(host, path, text)
    users = find_users(host, CARD, find_dependents(host, CARD))
    assert all(user.isprintable() for user in users)
    put(host, path, before or "")
