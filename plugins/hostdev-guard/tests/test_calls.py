"""The guard in the calls that change something, in the command, and where it cannot know."""

import json
import os
import subprocess
import sys

import pytest

import hostdev_guard
from hostdev_core import (
    Domain,
    PCIDevice,
    PCIHostdev,
    PluginError,
    PrepareFlags,
    Registry,
    VetoError,
    open_connection,
)
from hostdev_core.testing import make_sample
from machines import Machine, refusals_of

NVME, OTHER = "0000:01:00.0", "0000:02:00.0"


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """One whose first disk is mounted, with swap; the second is idle."""
    machine.nvme(NVME)
    machine.mount("/srv", machine.part("nvme0n1", "nvme0n1p1"))
    machine.swap(f"/dev/{machine.part('nvme0n1', 'nvme0n1p2')}")
    machine.nvme(OTHER, "nvme1n1")
    return machine


def command(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "hostdev_core.cli",
            "--host",
            machine.host.root,
            "-c",
            "qemu:///system",
            *words,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HOSTDEV_REQUIRE_PLUGINS": "guard"},
        timeout=100,
    )


def test_prepare_and_detach_are_refused_and_change_nothing(machine: Machine) -> None:
    before = machine.host.snapshot()
    with machine.connect() as conn:
        for call in (
            lambda: conn.prepare_hostdevs(Domain("vm1", [OTHER, NVME])),
            lambda: conn.detach_device(NVME),
        ):
            with pytest.raises(VetoError) as raised:
                call()
            assert {r.rule for r in refusals_of(raised.value)} == {"mounted-filesystem", "swap"}
    assert machine.host.snapshot() == before
    assert machine.host.writes() == []
    assert machine.host.ledger.records() == []


def test_one_rule_is_passed_at_a_time(machine: Machine) -> None:
    with machine.connect() as conn:
        for rule, other in (("swap", "mounted-filesystem"), ("mounted-filesystem", "swap")):
            hostdev = PCIHostdev(address=NVME, allow={rule})
            for call in (
                lambda hostdev=hostdev: conn.prepare_hostdevs(Domain("vm1", [hostdev])),
                lambda rule=rule: conn.detach_device(NVME, allow=[rule]),
            ):
                with pytest.raises(VetoError) as raised:
                    call()
                assert [r.rule for r in refusals_of(raised.value)] == [other]
        both = PCIHostdev(address=NVME, allow={"swap", "mounted-filesystem"})
        conn.prepare_hostdevs(Domain("vm1", [both]))
        (record,) = machine.host.ledger.records()
        assert record.allowed == "mounted-filesystem swap"
        conn.reattach_hostdevs("vm1")


def test_an_idle_disk_goes_and_comes_back(machine: Machine) -> None:
    before = machine.host.snapshot()
    with machine.connect() as conn:
        conn.prepare_hostdevs(Domain("vm1", [OTHER]))
        conn.reattach_hostdevs("vm1")
    assert machine.host.snapshot() == before


def test_a_sibling_is_guarded_too(machine: Machine) -> None:
    one, two = "0000:07:00.0", "0000:07:00.1"
    for address, name in ((one, "nvme7n1"), (two, "nvme8n1")):
        machine.add(address, iommu_group=7)
        machine.disk(address, name)
    machine.mount("/mnt", "nvme8n1")
    with machine.connect() as conn, pytest.raises(VetoError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [one]), PrepareFlags.WHOLE_GROUP)
    assert [(r.device, r.rule) for r in refusals_of(raised.value)] == [(two, "mounted-filesystem")]
    with machine.connect() as conn:
        hostdev = PCIHostdev(address=one, allow={"mounted-filesystem"})
        conn.prepare_hostdevs(Domain("vm1", [hostdev]), PrepareFlags.WHOLE_GROUP)
        allowed = {record.address: record.allowed for record in machine.host.ledger.records()}
        assert allowed == {one: "mounted-filesystem", two: "mounted-filesystem"}
        conn.reattach_hostdevs("vm1")


@pytest.mark.parametrize("what", ["absent", "unreadable", "strange"])
def test_without_the_mounts_everything_is_refused(machine: Machine, what: str) -> None:
    mounts = machine.proc / "self/mountinfo"
    mounts.unlink()
    if what == "unreadable":
        mounts.mkdir()
    elif what == "strange":
        mounts.write_text("36 35 98:0 / /mnt rw\n")
    before = machine.host.snapshot()
    with machine.connect() as conn:
        for call in (
            lambda: conn.prepare_hostdevs(Domain("vm1", [OTHER])),
            lambda: conn.detach_device(OTHER),
        ):
            with pytest.raises(PluginError, match="mountinfo") as raised:
                call()
            assert raised.value.plugin == "guard"
    assert machine.host.snapshot() == before
    assert machine.host.ledger.records() == []


def test_the_command_says_why_and_takes_allow(machine: Machine) -> None:
    done = command(machine, "prepare", "vm1", NVME, "--allow", "swap")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"hostdev: {NVME}: a mounted file system is on it: unmount that first"
        f" (/srv is on nvme0n1p1, on nvme0n1, on {NVME}) [mounted-filesystem]\n"
        "  to pass it: --allow mounted-filesystem\n"
    )
    assert machine.host.ledger.records() == []
    allowed = ("--allow", "swap", "--allow", "mounted-filesystem")
    assert command(machine, "prepare", "vm1", NVME, *allowed).returncode == 0
    (record,) = json.loads(command(machine, "status", "--json").stdout)["records"]
    assert record["allowed"] == ["mounted-filesystem", "swap"]
    assert command(machine, "reattach", "vm1").returncode == 0
    assert command(machine, "device", "detach", NVME).returncode == 1
    assert command(machine, "device", "detach", NVME, *allowed).returncode == 0


def test_the_installed_plugin_is_found(machine: Machine) -> None:
    registry = Registry.from_entry_points()
    assert registry.plugins["guard"] is hostdev_guard.plugin
    assert not [error for error in registry.load_errors if error.plugin == "guard"]
    with (
        open_connection(f"test://{machine.host.root}", registry=registry) as conn,
        pytest.raises(VetoError, match="/srv is on"),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NVME]))


def test_a_machine_that_mounts_nothing_lends_everything(machine: Machine) -> None:
    host = make_sample(machine.host.path("sample"))
    with open_connection(f"test://{host.root}", registry=Registry.from_entry_points()) as conn:
        assignments = conn.prepare_hostdevs(Domain("vm1", ["01:00.0", "04:00.0", "1-3"]))
    assert len([each for each in assignments if isinstance(each.device, PCIDevice)]) == 2
