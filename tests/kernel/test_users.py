"""Who uses a device of a real kernel is named, by `find_users` itself and when a remove waits for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

import pytest

from . import inside, machines
from .guest import Guest, wait_until
from .test_hang import others_go_on
from .world import DEVICES, call, hostdev, kernel_drivers

SOUND = machines.FREE_ADDRESS
BUSYBOX = "/bin/busybox"


def having_open(guest: Guest, node: str) -> AbstractContextManager[int]:
    """A process has a node open; its pid. It has let go at the end of the block."""
    return running(guest, f"exec 9< {node}; echo $$; exec sleep 1000")


@contextmanager
def running(guest: Guest, script: str) -> Generator[int]:
    """A process runs this script, which prints its pid first; it has ended at the end of the block."""
    holder = guest.start(script)
    try:
        yield int(holder.first_line())
    finally:
        holder.kill()
        holder.wait()


@contextmanager
def partitioned(guest: Guest) -> Generator[None]:
    """The NVMe's disk has a mounted partition and one that is swapped to."""
    table = r"n\np\n1\n\n+6M\nn\np\n2\n\n\nw\n"
    guest.check(
        f"cd /dev; printf '{table}' | {BUSYBOX} fdisk nvme0n1 && udevadm settle"
        f" && {BUSYBOX} mke2fs nvme0n1p1 && mkdir -p '/run/my disk'"
        f" && mount -t ext4 nvme0n1p1 '/run/my disk'"
        f" && {BUSYBOX} mkswap nvme0n1p2 && {BUSYBOX} swapon /dev/nvme0n1p2 && udevadm settle"
    )
    try:
        yield
    finally:
        guest.check(
            f"{BUSYBOX} swapoff /dev/nvme0n1p2; umount '/run/my disk'"
            "; dd if=/dev/zero of=/dev/nvme0n1 bs=1M count=16 && udevadm settle"
            " && blockdev --rereadpt /dev/nvme0n1 && udevadm settle"
        )


def test_a_disk(spare: Guest) -> None:
    assert call(spare, inside.users, machines.NVME) == ()
    with partitioned(spare), having_open(spare, "/dev/nvme0n1") as pid:
        assert call(spare, inside.users, machines.NVME) == (
            f"sleep (pid {pid}, /dev/nvme0n1)",
            "nvme0n1p1 mounted at /run/my disk",
            "swap on nvme0n1p2",
        )
    assert call(spare, inside.users, machines.NVME) == ()


def test_a_network_interface(spare: Guest) -> None:
    path = f"{DEVICES}/{machines.NIC}/net"
    name = spare.check(f"udevadm settle; ls {path}").strip()
    assert call(spare, inside.users, machines.NIC) == ()
    ip = f"{BUSYBOX} ip"
    spare.check(
        f"modprobe bridge; {ip} link add br7 type bridge; {ip} link set {name} up master br7"
        f"; {ip} addr add 192.0.2.7/24 dev {name}; {ip} -6 addr add 2001:db8::7/64 dev {name}"
    )
    try:
        (user,) = call(spare, inside.users, machines.NIC)
    finally:
        spare.check(f"{ip} link del br7; {ip} addr flush dev {name}; {ip} link set {name} down")
    assert user.startswith(f"network interface {name} (up, in bridge br7, ")
    assert "route to 192.0.2.0/24" in user
    assert "address 2001:db8::7" in user
    assert call(spare, inside.users, machines.NIC) == ()


def test_what_is_plugged_into_a_controller(spare: Guest) -> None:
    """A mouse's input device, a stick's disk, and the node of a USB device itself."""
    folder = f"{DEVICES}/{machines.XHCI}"
    wait_until(
        spare,
        f"cd {folder}/; find . -name 'event[0-9]*' | grep -q . && find . -path '*/block/sd?' | grep -q ."
        " && udevadm settle",
    )
    found = spare.check(
        f"cd {folder}/; find . -name 'event[0-9]*' | head -n 1; find . -path '*/block/sd?' | head -n 1"
        "; for port in usb?/?-?; do printf '%03d/%03d\\n' $(cat $port/busnum $port/devnum); done"
    ).split()
    event, disk = (path.rpartition("/")[2] for path in found[:2])
    for node in (f"/dev/input/{event}", f"/dev/{disk}", f"/dev/bus/usb/{found[2]}"):
        with having_open(spare, node) as pid:
            assert call(spare, inside.users, machines.XHCI) == (f"sleep (pid {pid}, {node})",)


@contextmanager
def sound_card(guest: Guest) -> Generator[None]:
    """A sound card in the free port."""
    guest.monitor(f"device_add AC97,id=sound,bus={machines.FREE_PORT}")
    wait_until(guest, f"[ -e {DEVICES}/{SOUND}/driver -a -e /dev/snd/controlC0 ]; udevadm settle")
    yield
    guest.monitor("device_del sound")
    wait_until(guest, f"[ ! -e {DEVICES}/{SOUND} ]")


@pytest.mark.parametrize("killed", [False, True])
def test_a_sound_card_that_a_process_has_open(spare: Guest, killed: bool) -> None:
    """Its driver's remove takes the nodes away and then waits, for as long as one is open.

    Our process may end meanwhile: it stays until the kernel returns, and another one recovers.
    """
    spare.check("modprobe vfio-pci")  # that is not what the deadline is for
    with sound_card(spare):
        home = kernel_drivers(spare, SOUND)
        with having_open(spare, "/dev/snd/controlC0") as pid:
            refused = hostdev(spare, "prepare", "vm1", SOUND)
            assert f"(sleep (pid {pid}, /dev/snd/controlC0)) [in-use]\n" in refused.stderr
            assert kernel_drivers(spare, SOUND) == home
            words = ("--allow", "in-use", "--timeout", "3")
            failed = hostdev(spare, "prepare", "vm1", SOUND, *words)
            assert failed.returncode == 3
            assert f"sleep (pid {pid}, /dev/snd/controlC0)" in failed.stderr
            assert spare.run("ls /sys/class/sound/controlC0").returncode != 0
            status = hostdev(spare, "status")
            assert status.returncode == 3
            assert f"pid {pid}, /dev/snd/controlC0" in status.stdout
            others_go_on(spare)
            if killed:
                spare.check("kill -KILL $(sed 's/.*(pid \\([0-9]*\\)).*/\\1/' /run/hostdev/op/*)")
            assert hostdev(spare, "recover").returncode == 3
            assert list(call(spare, inside.records)) == [SOUND]
        if killed:
            wait_until(spare, "flock -n $(ls /run/hostdev/op/*) true")
            assert kernel_drivers(spare, SOUND) == [""]
            assert hostdev(spare, "recover").returncode == 0
        wait_until(spare, '[ -z "$(ls /run/hostdev/op)" ]')
        assert kernel_drivers(spare, SOUND) == home
        assert call(spare, inside.records) == {}
