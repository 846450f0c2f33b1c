"""hostdev-guard on what a real kernel shows of disks, volumes, sticks and interfaces in use."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from . import inside_guard, machines
from .guest import Guest, wait_until
from .world import DEVICES, call

NIC, OTHER_NIC, NVME, XHCI = machines.NIC, machines.NIC2, machines.NVME, machines.XHCI
DISK = "/dev/nvme0n1"


@contextmanager
def undone(guest: Guest, *undo: str) -> Generator[None]:
    """Run these commands at the end, whatever becomes of the test."""
    try:
        yield
    finally:
        guest.run("; ".join(undo))


def interface(guest: Guest, address: str) -> str:
    """The network interface of a PCI function."""
    return guest.check(f"udevadm settle; ls {DEVICES}/{address}/net").strip()


def test_a_disk_in_use(spare: Guest) -> None:
    assert call(spare, inside_guard.refused, NVME) == {}
    undo = ("swapoff -a", "umount /mnt/guard", f"delpart {DISK} 1; delpart {DISK} 2")
    with undone(spare, *undo):
        spare.check(
            f"addpart {DISK} 1 2048 8192 && addpart {DISK} 2 12288 8192 && udevadm settle &&"
            f" busybox mke2fs {DISK}p1 >&2 && busybox mkswap {DISK}p2 >&2 && mkdir -p /mnt/guard"
        )
        assert call(spare, inside_guard.refused, NVME) == {}  # full of data, and idle
        spare.check(f"mount {DISK}p1 /mnt/guard && swapon {DISK}p2")
        refused = call(spare, inside_guard.refused, NVME)
        assert {*refused} == {(NVME, "mounted-filesystem"), (NVME, "swap")}
        (mount,), (swap,) = refused.values()
        assert mount.startswith("/mnt/guard is on nvme0n1p1, on nvme0n1, on ")
        assert swap.startswith("swap is on nvme0n1p2, on nvme0n1, on ")
        assert mount.endswith(f", on {NVME}")
        assert {*call(spare, inside_guard.detach, NVME, "swap")} == {(NVME, "mounted-filesystem")}
    assert call(spare, inside_guard.detach, NVME) == {}


def test_a_volume_and_a_mount_of_another_namespace(spare: Guest) -> None:
    number = spare.check("modprobe dm-mod; cat /sys/class/block/nvme0n1/dev").strip()
    sectors = int(spare.check("cat /sys/class/block/nvme0n1/size"))
    call(spare, inside_guard.map_device, "guard", number, sectors)
    with undone(spare, "umount /mnt/guard", "udevadm settle"):
        spare.check("udevadm settle; mkdir -p /mnt/guard; busybox mke2fs /dev/dm-0 >&2")
        idle = {(NVME, "in-use"): ("dm-0 on nvme0n1",)}  # active, and not mounted
        assert call(spare, inside_guard.refused, NVME) == idle
        spare.check("mount /dev/dm-0 /mnt/guard")
        ((mount,),) = call(spare, inside_guard.refused, NVME).values()
        assert mount.startswith("/mnt/guard is on dm-0, on nvme0n1, on ")
        spare.check("umount /mnt/guard")
        other = spare.start("unshare -m sh -c 'mount -t ext4 /dev/dm-0 /mnt/guard; sleep 600'")
        wait_until(spare, "[ -e /sys/fs/ext4/dm-0 ]")
        ((mount,),) = call(spare, inside_guard.refused, NVME).values()
        assert mount.startswith("a mounted ext4 is on dm-0, on nvme0n1, on ")
        other.kill()
        wait_until(spare, "[ ! -e /sys/fs/ext4/dm-0 ]")
        assert call(spare, inside_guard.refused, NVME) == idle
    call(spare, inside_guard.unmap_device, "guard")


def test_a_stick_and_a_loop_on_it(spare: Guest) -> None:
    stick = spare.check("basename $(echo /sys/bus/usb/drivers/usb-storage/*:1.0)").partition(":")[0]
    listing = f"ls {DEVICES}/{XHCI}/usb*/{stick}/{stick}:1.0/host*/target*/*/block"
    wait_until(spare, listing)
    disk = spare.check(listing).strip()
    with undone(spare, "umount /mnt/inner", "umount /mnt/guard"):
        spare.check(
            f"mkdir -p /mnt/guard /mnt/inner; busybox mke2fs /dev/{disk} >&2 && mount /dev/{disk} /mnt/guard"
            " && dd if=/dev/zero of=/mnt/guard/image bs=1M count=2 2>&1 && modprobe loop"
            " && busybox mke2fs -F /mnt/guard/image >&2 && mount -o loop /mnt/guard/image /mnt/inner"
        )
        outer, inner = call(spare, inside_guard.refused, stick)[stick, "mounted-filesystem"]
        assert outer == f"/mnt/guard is on {disk}, on {stick}"
        assert inner == f"/mnt/inner is on loop0, on {disk}, on {stick}"
        evidence = call(spare, inside_guard.refused, XHCI)[XHCI, "mounted-filesystem"]
        assert evidence == (f"{outer}, on {XHCI}", f"{inner}, on {XHCI}")


def test_interfaces_in_use(spare: Guest) -> None:
    one, two = interface(spare, NIC), interface(spare, OTHER_NIC)
    undo = (
        "busybox ip link del br0",
        f"busybox ip addr flush dev {two}",
        f"busybox ip link set {two} down",
    )
    with undone(spare, *undo, f"busybox ip link set {one} down"):
        assert call(spare, inside_guard.refused, NIC, OTHER_NIC) == {}
        spare.check(
            f"busybox ip link add br0 type bridge && busybox ip link set {one} master br0"
            f" && busybox ip link set {two} up && busybox ip addr add 192.0.2.2/24 dev {two}"
            f" && busybox ip route add default via 192.0.2.1 dev {two}"
        )
        assert call(spare, inside_guard.refused, NIC, OTHER_NIC) == {
            (NIC, "bond-or-bridge"): (f"bridge br0 has {one}, on {NIC}",),
            (OTHER_NIC, "default-route"): (f"the default route goes over {two}, on {OTHER_NIC}",),
        }
