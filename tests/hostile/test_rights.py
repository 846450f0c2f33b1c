"""Without root: what only looks works, what would change is refused before anything is done."""

import os
import subprocess
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run, run_as_nobody
from tests.hostile.command import check_words
from tests.sample import NIC

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def host(public: Path) -> SimulatedHost:
    """A machine that everybody may look at, with a ledger that only root may."""
    host = SimulatedHost.create(public / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    assert run("prepare", "vm1", NIC, *QEMU, host=host).returncode == 0
    return host


@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "vm1", "00:00.0"),
        ("recover",),
        ("device", "detach", "00:01.0"),
        ("device", "reattach", "00:01.0"),
        ("device", "reset", "00:01.0"),
        ("device", "forget", "00:01.0", "--as-is"),
    ],
)
def test_a_change_of_this_machine_is_refused(words: tuple[str, ...]) -> None:
    done = run_as_nobody(*words, *QEMU)
    assert done.returncode == 1
    assert "root" in done.stderr
    check(done)


def test_looking_is_free_and_says_what_may_not_be_read(host: SimulatedHost) -> None:
    before = host.snapshot()
    for words in (("list",), ("show", NIC)):
        done = run_as_nobody(*words, "--host", host.root)
        assert done.returncode == 0
        assert NIC in done.stdout
        assert f"may not read {host.ledger.path}" in done.stderr
        check(done)
    for words in (("status",), ("reattach", "vm1", *QEMU), ("prepare", "vm2", NIC, *QEMU)):
        done = run_as_nobody(*words, "--host", host.root)
        assert done.returncode == 1
        assert f"may not read {host.ledger.path}" in done.stderr
        check(done)
    assert host.snapshot() == before


def check(done: subprocess.CompletedProcess[str]) -> None:
    check_words(done.stdout + done.stderr)
    assert done.stderr.startswith("hostdev: ")
