"""A driver that crashes the kernel in its remove, or in its probe: said at once, and nobody waits for it.

Each has a device of its own, of a machine of its own: what the kernel keeps locked stays so till it reboots.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import suppress

import pytest

from hostdev_core import KernelCrashError, ReattachError

from . import inside, machines
from .guest import Guest
from .guest_command import GuestError
from .test_others import rebind
from .world import call, hostdev, kernel_drivers

NIC, NIC2, NIC3 = machines.NIC, machines.NIC2, "0000:03:00.0"
PARAMETERS = "/sys/module/lab_crash/parameters"
IN_THE_KERNEL = (
    "for p in /proc/[0-9]*; do grep -q '^State:.D' $p/task/*/status && cat $p/comm; done; true"
)
UDEV = "(udev-worker)"
"""It reads of the device of each event that there was, and waits for its lock."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Generator[Guest]:
    with Guest(tmp_path_factory.mktemp("crash"), machines.small(3)) as guest:
        guest.check("modprobe -a e1000e vfio-pci lab_crash; udevadm settle")
        yield guest
        with suppress(
            GuestError
        ):  # it has no way down: its kernel would wait for the devices' locks
            guest.monitor("quit")


def nobody_waits_and_others_go_on(guest: Guest, crashed: str, what: str) -> None:
    status = hostdev(guest, "status")
    assert status.returncode == 3
    assert f"the kernel crashed in this: {what}" in " ".join(status.stdout.split())
    assert call(guest, inside.recover) == ()
    recovered = hostdev(guest, "recover")
    assert (recovered.returncode, crashed in recovered.stderr) == (3, True), recovered
    for words in (("prepare", "vm2", crashed), ("device", "detach", crashed)):
        refused = hostdev(guest, *words)
        assert refused.returncode == 1
        assert "only a reboot frees it" in refused.stderr
    assert hostdev(guest, "list").returncode == 0
    assert hostdev(guest, "prepare", "vm2", NIC2).returncode == 0
    assert kernel_drivers(guest, NIC2) == ["vfio-pci"]
    assert hostdev(guest, "reattach", "vm2").returncode == 0
    assert kernel_drivers(guest, NIC2) == ["e1000e"]
    assert guest.check("ls /run/hostdev/op") == ""
    assert list(call(guest, inside.records)) == [crashed]
    assert hostdev(guest, "device", "forget", crashed, "--as-is").returncode == 0
    assert call(guest, inside.records) == {}
    assert {*guest.check(IN_THE_KERNEL).splitlines()} <= {UDEV}


def test_a_prepare_of_a_device_whose_driver_crashes_when_it_is_removed(small: Guest) -> None:
    rebind(small, NIC, "lab_crash")
    small.check(f"echo Y > {PARAMETERS}/in_remove")
    refused = hostdev(small, "prepare", "vm1", NIC2, NIC)
    small.check(f"echo N > {PARAMETERS}/in_remove")
    assert refused.returncode == 3
    assert f"the kernel crashed in this: unbind {NIC} from lab_crash" in refused.stderr
    assert "BUG: kernel NULL pointer dereference" in refused.stderr
    assert kernel_drivers(small, NIC2) == ["e1000e"]
    (record,) = call(small, inside.records).values()
    assert (record.address, record.op) == (NIC, None)
    nobody_waits_and_others_go_on(small, NIC, f"unbind {NIC} from lab_crash")


def test_a_reattach_to_a_driver_that_crashes_when_it_probes(small: Guest) -> None:
    rebind(small, NIC3, "lab_crash")
    call(small, inside.prepare, "vm1", [NIC2, NIC3])
    small.check(f"echo Y > {PARAMETERS}/in_probe")
    with pytest.raises(ReattachError) as raised:
        call(small, inside.reattach, "vm1")
    small.check(f"echo N > {PARAMETERS}/in_probe")
    (error,) = raised.value.exceptions
    assert isinstance(error, KernelCrashError)
    assert kernel_drivers(small, NIC2) == ["e1000e"]
    (record,) = call(small, inside.records).values()
    assert (record.address, record.op) == (NIC3, None)
    rows = json.loads(hostdev(small, "status", "--json").stdout)
    assert rows["stuck"] == [NIC3]
    nobody_waits_and_others_go_on(small, NIC3, f"bind {NIC3} to lab_crash")
