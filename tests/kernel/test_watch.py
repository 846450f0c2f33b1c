"""What `hostdev watch` tells on a real kernel, while other commands and the hardware change things."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

import pytest

from .guest import Guest
from .guest_command import COMMAND_TIMEOUT, Command
from .hotplug import HOT, plug, unplug
from .machines import NIC
from .world import hostdev

PID = "/tmp/watch.pid"
pytestmark = pytest.mark.case("events of devices, told by `hostdev watch`")


def watch(guest: Guest) -> Command:
    """Start the command, and wait until it listens."""
    words = [guest.system.python, "-m", "hostdev_core.cli", "watch", "--json", "--state"]
    command = guest.start(f"echo $$ > {PID}; exec {shlex.join(words)}")
    command.first_line()
    return command


def stop(guest: Guest, command: Command) -> None:
    """End it by its own process; SIGINT is ignored by what a shell starts in the background."""
    guest.check(f"kill -TERM $(cat {PID})")
    assert command.wait().returncode == 0


def told(command: Command, address: str) -> list[dict[str, Any]]:
    """The events of a device so far, but for where it stood first; the last line may be half a one."""
    whole, _, _ = command.stdout.rpartition("\n")
    events = [json.loads(line) for line in whole.splitlines()]
    return [e for e in events if e["address"] == address and not e["initial"]]


def until(command: Command, address: str, kind: str) -> list[dict[str, Any]]:
    """Wait until the last event of a device is of this kind; what was told of the device."""
    end = time.monotonic() + COMMAND_TIMEOUT
    while not (found := told(command, address)) or found[-1]["event"] != kind:
        assert command.running, command.stderr
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """What was told, whether or not the operation was seen at its work."""
    return [event["event"] for event in events if event["event"] != "at work"]


def test_a_card_is_lent_and_given_back_and_one_is_pulled_out(bare: Guest) -> None:
    events = watch(bare)
    assert hostdev(bare, "-c", "qemu:///system", "prepare", "vm1", NIC).returncode == 0
    lent = until(events, NIC, "lent")
    assert kinds(lent) == ["unbound", "bound", "lent"]
    assert [e["kernel_driver"] for e in lent if e["event"] in {"unbound", "bound"}] == [
        "e1000e",
        "vfio-pci",
    ]
    assert lent[-1]["used_by"]["domain"] == "vm1"
    assert hostdev(bare, "-c", "qemu:///system", "reattach", "vm1").returncode == 0
    back = until(events, NIC, "returned")[len(lent) :]
    assert kinds(back) == ["unbound", "bound", "returned"]
    plug(bare, "hot9")
    until(events, HOT, "bound")
    assert hostdev(bare, "-c", "qemu:///system", "prepare", "vm1", HOT).returncode == 0
    until(events, HOT, "lent")
    unplug(bare, "hot9")
    gone = until(events, HOT, "drift")
    assert kinds(gone)[-3:] == ["unbound", "removed", "drift"]
    assert gone[-1]["reason"].startswith("gone: ")
    assert hostdev(bare, "-c", "qemu:///system", "reattach", "vm1").returncode == 0
    ended = until(events, HOT, "returned")
    assert kinds(ended)[:2] == ["added", "bound"]
    assert kinds(ended)[-2:] == ["drift ended", "returned"]
    stop(bare, events)


def test_a_detached_card_that_a_stranger_holds(bare: Guest) -> None:
    events = watch(bare)
    assert hostdev(bare, "-c", "qemu:///system", "device", "detach", NIC).returncode == 0
    until(events, NIC, "detached")
    group = bare.check(f"basename $(readlink /sys/bus/pci/devices/{NIC}/iommu_group)").strip()
    holder = bare.start(f"exec sleep 1000 < /dev/vfio/{group}")
    held = until(events, NIC, "held")
    assert "sleep (pid " in held[-1]["reason"]
    holder.kill()
    until(events, NIC, "let go")
    assert hostdev(bare, "-c", "qemu:///system", "device", "reattach", NIC).returncode == 0
    until(events, NIC, "returned")
    stop(bare, events)


LOSE = """
import os, socket, sys
from pathlib import Path
from hostdev_core import Host, Watch

card = Path("/sys/bus/pci/devices", sys.argv[1])
driver = (card / "driver").resolve()
before = {*os.listdir("/proc/self/fd")}
with Watch(Host()) as events:
    for fd in map(int, {*os.listdir("/proc/self/fd")} - before):
        if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            listening = socket.socket(fileno=os.dup(fd))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that there is
    for _ in range(100):
        (card / "uevent").write_text("change")
    (driver / "unbind").write_text(card.name)
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()]
    print(*(row[8] for row in rows if row[9] == str(os.fstat(listening.fileno()).st_ino)))
    told = []
    while (event := events.next(timeout=5)) is not None:
        told.append(event.kind)
    (driver / "bind").write_text(card.name)
    told.append(events.next(timeout=60).kind)
    print(*told)
    listening.close()
"""


def test_what_the_kernel_has_dropped_is_found_by_a_look_at_all(bare: Guest) -> None:
    """A reader that does not read gets no more events than its socket holds: the last one is lost."""
    done = bare.python(LOSE, NIC)
    assert done.returncode == 0, done.stderr
    dropped, told = done.stdout.splitlines()
    assert int(dropped) > 50
    assert told == "unbound bound"
