"""`hostdev watch`: what other commands and the kernel do to devices, told by a process of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, addresses, run
from tests.helpers.in_use import usb_node
from tests.helpers.processes import children, wait_until
from tests.helpers.users import having_open
from tests.helpers.watching import Lines, watching
from tests.sample import NIC, OTHER, STICK

pytestmark = pytest.mark.sample

UNBIND = "*/e1000e/unbind"


def without_work(lines: Lines, address: str) -> list[str]:
    """What was told of a device, whether or not an operation was seen while it was at work."""
    return [kind for kind in lines.kinds(address) if kind != "at work"]


def test_a_device_that_another_command_lends_and_takes_back(host: SimulatedHost) -> None:
    with watching(host) as events:
        assert run("prepare", "vm1", NIC, STICK, host=host).returncode == 0
        lent = events.until("lent", NIC)
        assert run("reattach", "vm1", host=host).returncode == 0
        returned = events.until("returned", NIC)
        run("device", "detach", OTHER, host=host)
        events.until("detached", OTHER)  # all that came before is told by now
        around = ["unbound", "bound", "lent", "unbound", "bound", "returned"]
        assert without_work(events, NIC) == around
        assert without_work(events, STICK) == ["lent", "returned"]
    assert lent["used_by"]["domain"] == returned["used_by"]["domain"] == "vm1"
    assert (lent["state"], returned["state"]) == ("lent", "free")
    assert lent["time"] <= returned["time"] <= time.time()


def test_where_things_stand_is_told_first(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    with watching(host) as events:
        lent = events.until("lent", NIC)
        run("reattach", "vm1", host=host)
        later = events.until("returned", NIC)
    first = [e for e in events.seen if e["initial"]]
    assert lent in first
    assert later not in first
    assert {(e["kind"], e["address"]) for e in first if e["event"] == "added"} == {
        (device.kind, device.name)
        for bus in host.buses.values()
        for device in bus.devices().values()
    }


def test_a_kernel_that_does_not_return(host: SimulatedHost) -> None:
    host.on_write(UNBIND, hang=True)
    with watching(host) as events:
        assert run("prepare", "vm1", NIC, "--timeout", "1", host=host).returncode == 3
        stuck = events.until("stuck", NIC)
        assert "at work" in events.kinds(NIC)
        host.release()
        events.until("returned", NIC)
    assert (stuck["state"], stuck["used_by"]["domain"]) == ("stuck", "vm1")
    assert "has not returned" in stuck["reason"]


def test_an_operation_that_is_killed_is_told_although_no_record_changes(
    host: SimulatedHost,
) -> None:
    host.on_write("*/vfio-pci/bind", hang=True)
    with watching(host) as events:
        words = [*COMMAND, "prepare", "vm1", NIC, "--host", host.root]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            work = events.until("at work", NIC)
            host.wait_hanging()
            (worker,) = children(process.pid)
            os.kill(worker, signal.SIGKILL)
        assert f"pid {worker}" in work["reason"]
        assert events.until("stuck", NIC)["state"] == "left over"
        assert run("recover", host=host).returncode == 0
        events.until("returned", NIC)


def test_a_detached_device_that_a_stranger_holds(host: SimulatedHost) -> None:
    with watching(host) as events:
        run("device", "detach", NIC, host=host)
        assert events.until("detached", NIC)["state"] == "inactive"
        with having_open(host.path("dev/vfio/1")) as pid:
            held = events.until("held", NIC)
        events.until("let go", NIC)
    assert f"(pid {pid}, " in held["reason"]
    assert held["used_by"] is None


def test_who_holds_a_lent_device_is_its_domain_and_no_stranger(host: SimulatedHost) -> None:
    with watching(host) as events:
        run("prepare", "vm1", STICK, host=host)
        with having_open(usb_node(host, STICK)):
            run("device", "detach", NIC, host=host)
            events.until("detached", NIC)
        with having_open(host.path("dev/vfio/1")):
            events.until("held", NIC)  # the node of the stick was looked at before
    assert "held" not in events.kinds(STICK)


def test_a_usb_device_that_a_program_has_open_or_claims(host: SimulatedHost) -> None:
    with watching(host) as events:
        with having_open(usb_node(host, STICK)) as pid:
            assert f"(pid {pid}, " in events.until("held", STICK)["reason"]
        events.until("let go", STICK)
        with host.hold(STICK):
            assert "is claimed" in events.until("held", STICK)["reason"]
        events.until("let go", STICK)


def test_a_node_that_was_open_before_the_watch_began(host: SimulatedHost) -> None:
    with having_open(usb_node(host, STICK)), watching(host) as events:
        assert events.until("held", STICK)["initial"]


def test_a_lent_device_that_somebody_rebinds(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    with watching(host) as events:
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", NIC)
        drift = events.until("drift", NIC)
        assert drift["reason"] == "rebound: on no driver, lent on vfio-pci"
        host.sysfs.write("bus/pci/drivers/vfio-pci/bind", NIC)
        events.until("drift ended", NIC)
        assert events.kinds(NIC) == ["unbound", "drift", "bound", "drift ended"]


def test_a_device_that_is_pulled_while_it_is_lent(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    with watching(host) as events:
        host.unplug(NIC)
        assert events.until("drift", NIC)["reason"].startswith("gone: ")
        assert events.kinds(NIC) == ["unbound", "removed", "drift"]
        host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
        assert events.until("drift", NIC)["reason"].startswith("replaced: ")
        run("reattach", "vm1", host=host)
        events.until("returned", NIC)


def test_a_lending_is_never_taken_for_drift(host: SimulatedHost) -> None:
    with watching(host) as events:
        for _ in range(2):
            run("prepare", "vm1", NIC, OTHER, host=host)
            run("reattach", "vm1", host=host)
        run("device", "detach", OTHER, host=host)
        events.until("detached", OTHER)
    told = {event["event"] for event in events.seen}
    assert not told & {"drift", "drift ended", "held", "stuck"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_without_a_word(host: SimulatedHost, number: signal.Signals) -> None:
    with watching(host) as events:
        events.process.send_signal(number)
        _, errors = events.process.communicate(timeout=60)
    assert (events.process.returncode, errors) == (0, "")


def test_a_reader_that_goes_ends_it_although_nothing_happens(host: SimulatedHost) -> None:
    with watching(host) as events:
        assert events.process.stdout is not None
        events.process.stdout.close()
        assert events.process.wait(60) == 0
        assert events.process.stderr is not None
        assert events.process.stderr.read() == ""


def switches(pid: int) -> str:
    """How often a process has gone to sleep and was woken (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return status.partition("\nvoluntary_ctxt_switches:")[2].split()[0]


def sleeps(pid: int) -> bool:
    """Whether it is not woken for a while: one that asked again and again never would be."""
    before = switches(pid)
    time.sleep(2)
    return switches(pid) == before


def test_while_nothing_happens_it_sleeps(host: SimulatedHost) -> None:
    with watching(host) as events:
        run("prepare", "vm1", NIC, host=host)
        events.until("lent", NIC)
        wait_until(
            lambda: sleeps(events.process.pid)
        )  # once the nodes that were opened are looked at


def test_a_line_for_people(host: SimulatedHost) -> None:
    words = [*COMMAND, "watch", "--state", "--host", host.root]
    run("prepare", "vm1", NIC, host=host)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.kill()
    assert any(line.endswith(f"  {NIC}  lent to vm1 (qemu)\n") for line in lines), lines
    assert addresses(host) == [NIC]


def test_a_ledger_that_cannot_be_read_ends_it(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    with watching(host) as events:
        database = Path(host.state_dir, "state.db")
        database.unlink()
        database.write_bytes(b"")
        assert events.process.wait(60) == 1
        assert events.process.stderr is not None
        (error,) = events.process.stderr.read().splitlines()
    assert error.startswith(f"hostdev: {database} is empty")
