"""Loading a stub's module on a real kernel: what it binds; and containers with a /run of their own."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import NotAssignableError

from . import inside, machines
from .guest import Guest
from .world import DEVICES, call, kernel_drivers, read, world, write

NIC, NIC2 = machines.NIC, machines.NIC2
CONFIGURATION = "/etc/modprobe.d/hostdev-test.conf"
UNLOAD = "modprobe -r vfio-pci && test ! -e /sys/module/vfio_pci"


@contextmanager
def idle(guest: Guest, override: str) -> Generator[None]:
    """A device without a driver, with an override, and no vfio-pci in the kernel."""
    guest.check(UNLOAD)
    write(guest, NIC, "driver_override", override)
    guest.check(f"echo {NIC} > {DEVICES}/{NIC}/driver/unbind")
    try:
        yield
    finally:
        guest.run(f"rm -f {CONFIGURATION}; echo {NIC} > {DEVICES}/{NIC}/driver/unbind")
        write(guest, NIC, "driver_override", "")
        guest.check(f"echo {NIC} > /sys/bus/pci/drivers/e1000e/bind")


def test_a_load_binds_what_has_the_override_and_no_driver(bare: Guest) -> None:
    """What the simulated kernel does, too; and nothing binds it again once it is unbound."""
    with idle(bare, "vfio-pci"):
        bare.check("modprobe vfio-pci")
        assert kernel_drivers(bare, NIC, NIC2) == ["vfio-pci", "e1000e"]
        bare.check(f"echo {NIC} > {DEVICES}/{NIC}/driver/unbind")
        assert kernel_drivers(bare, NIC) == [""]


@pytest.mark.parametrize("by", ["override", "ids"])
def test_what_a_load_binds_is_found_before_it(bare: Guest, by: str) -> None:
    with idle(bare, "vfio-pci" if by == "override" else ""):
        if by == "ids":
            bare.check(f"echo options vfio-pci ids=8086:10d3 > {CONFIGURATION}")
        before = world(bare)
        assert before[f"{NIC} driver"] == ""
        with pytest.raises(NotAssignableError, match=NIC) as refused:
            call(bare, inside.prepare, "vm1", [NIC2])
        assert refused.value.rule == "module-ids"
        bare.check("test ! -e /sys/module/vfio_pci")
        call(bare, inside.prepare, "vm1", [NIC])
        assert kernel_drivers(bare, NIC) == ["vfio-pci"]
        assert call(bare, inside.reattach, "vm1") == (NIC,)
        assert world(bare) == before
        assert read(bare, NIC, "driver_override") == ("vfio-pci" if by == "override" else "(null)")


def test_a_blacklisted_module_is_loaded_and_a_disabled_one_is_not(bare: Guest) -> None:
    bare.check(UNLOAD)
    try:
        bare.check(f"echo install vfio-pci /bin/false > {CONFIGURATION}")
        with pytest.raises(NotAssignableError, match=f"{CONFIGURATION}:1 disables"):
            call(bare, inside.prepare, "vm1", [NIC])
        assert bare.run("modprobe vfio-pci").returncode != 0
        bare.check(f"echo blacklist vfio-pci > {CONFIGURATION}")
        call(bare, inside.prepare, "vm1", [NIC])
        assert call(bare, inside.reattach, "vm1") == (NIC,)
    finally:
        bare.check(f"rm {CONFIGURATION}")


OWN_PROCESSES = "unshare --pid --fork --mount-proc"
OWN_RUN = (
    "unshare --mount sh -c 'mkdir -p /tmp/own && mount -t tmpfs own /tmp/own && mkdir /tmp/own/host"
    ' && mount --rbind /run/host /tmp/own/host && mount --move /tmp/own /run; exec "$@"\' sh'
)


@pytest.mark.parametrize("place", [OWN_PROCESSES, OWN_RUN], ids=["processes", "a /run"])
def test_a_container_does_not_lend_what_the_host_has_lent(bare: Guest, place: str) -> None:
    command = f"{place} {shlex.quote(bare.system.python)} -m hostdev_core.cli"
    call(bare, inside.prepare, "vm1", [NIC])
    try:
        lent = world(bare)
        for words in (
            f"-c qemu:///system prepare vm2 {NIC}",
            "status",
            "-c qemu:///system recover",
        ):
            done = bare.run(f"{command} {words}")
            assert done.returncode == 1, done
            assert "what is lent on this host cannot be known" in done.stderr
        assert world(bare) == lent
        if place == OWN_PROCESSES:  # it sees the host's /run all the same
            done = bare.run(f"{command} status --state-dir /run/hostdev")
            assert f"{NIC}  lent" in done.stdout, done
    finally:
        assert call(bare, inside.reattach, "vm1") == (NIC,)
