"""Users of a device, made up: files that a process has open, mounts, swaps, routes, nodes."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hostdev_core import (
    Domain,
    PCIAddress,
    PCIHostdev,
)
from hostdev_core.simulated import SimulatedHost

CARD, HUB = "0000:05:00.0", "0000:06:00.0"

OPEN = "import sys; files = [open(path) for path in sys.argv[1:]]; print(flush=True); input()"
FIRST_THREAD_ENDS = f"""
import ctypes, threading
threading.Thread(target=exec, args=({OPEN!r}, {{}})).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def having_open(*paths: str, program: str = OPEN) -> Generator[int]:
    """Another process has these files open; its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


def taking(card: str) -> Domain:
    """A domain that takes a card although somebody uses it."""
    return Domain("vm1", [PCIHostdev(address=PCIAddress.parse(card), allow=frozenset({"in-use"}))])


def plug_in(host: SimulatedHost) -> None:
    """A card that is all in one, and a USB controller."""
    host.add_pci(
        CARD,
        kernel_driver="combi",
        iommu_group=5,
        net="eth5",
        block=("nvme0n1", "nvme0n1p1", "nvme0n1p2"),
        drm=("card0", "renderD128"),
        sound=("controlC0", "pcmC0D0p"),
    )
    host.add_usb("1-1", controller=HUB)


def put(host: SimulatedHost, path: str, text: str) -> None:
    """Write a file that the kernel has, wherever the simulated one has none."""
    place = Path(host.path(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, "utf-8", "replace")


def number_of(host: SimulatedHost, name: str) -> str | None:
    return host.sysfs.read(f"class/block/{name}/dev")


def mount(host: SimulatedHost, number: str | None, source: str, place: str) -> None:
    line = f"36 35 {number} / {place} rw,noatime shared:1 - ext4 {source} rw\n"
    put(host, "proc/self/mountinfo", f"22 1 0:21 / /proc rw - proc proc rw\n{line}")


def mounted(host: SimulatedHost) -> str:
    mount(host, number_of(host, "nvme0n1p1"), "/dev/root", r"/srv/my\040files")
    return "nvme0n1p1 mounted at /srv/my files"


def mounted_by_source(host: SimulatedHost) -> str:
    """As btrfs has it, with a number of its own."""
    mount(host, "0:45", "/dev/nvme0n1p2", "/srv")
    return "nvme0n1p2 mounted at /srv"


def swapped_to(host: SimulatedHost) -> str:
    put(host, "proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 9 0 -2\n")
    return "swap on nvme0n1p2"


def stack(host: SimulatedHost, name: str, on: str) -> None:
    put(host, f"sys/class/block/{name}/dev", f"254:{len(name + on)}\n")
    Path(host.sysfs.path(f"class/block/{name}/holders")).mkdir()
    os.symlink("../../block", host.sysfs.path(f"class/block/{name}/subsystem"))
    os.symlink("/", host.sysfs.path(f"class/block/{on}/holders/{name}"))


def mounted_on_top(host: SimulatedHost) -> str:
    """A logical volume on a RAID on a partition."""
    stack(host, "md0", "nvme0n1p1")
    stack(host, "dm-0", "md0")
    mount(host, number_of(host, "dm-0"), "/dev/mapper/vg-root", "/")
    return "dm-0 mounted at /, md0 on nvme0n1p1, dm-0 on md0"


def mounted_from_two_ports(host: SimulatedHost) -> str:
    """An NVMe disk with several paths has its node below no device; each path names it."""
    disk = "sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1"
    put(host, f"{disk}/dev", "259:33\n")
    put(host, f"{disk}/nvme3n1p1/dev", "259:34\n")
    for folder in (disk, f"{disk}/nvme3n1p1"):
        os.symlink(host.sysfs.path("class/block"), host.path(f"{folder}/subsystem"))
    os.symlink(host.path(disk), host.sysfs.path("class/block/nvme3n1"))
    put(host, f"sys/bus/pci/devices/{CARD}/nvme/nvme0/nvme3c0n1/size", "0\n")
    mount(host, "259:34", "/dev/nvme3n1p1", "/srv")
    return "nvme3n1p1 mounted at /srv"


def configured(host: SimulatedHost) -> str:
    put(host, "sys/class/net/eth5/flags", "0x1003\n")
    put(host, "sys/class/net/br0/bridge/x", "")
    os.symlink("../../br0", host.sysfs.path("class/net/eth5/master"))
    os.symlink("x", host.sysfs.path("class/net/eth5/upper_br0"))
    os.symlink("x", host.sysfs.path("class/net/eth5/upper_vlan7"))
    return "network interface eth5 (up, in bridge br0, below vlan7)"


def named_in_bytes(host: SimulatedHost) -> str:
    """The kernel takes any bytes for a name; these are no UTF-8."""
    folder = os.path.realpath(host.sysfs.path("class/net/eth5"))
    odd = os.fsdecode(os.fsencode(folder[:-1]) + b"\xff")
    os.rename(folder, odd)
    Path(odd, "flags").write_text("0x1003\n")
    return "network interface eth? (up)"


def routed(host: SimulatedHost) -> str:
    rest = "0001\t0\t0\t100"
    rows = (f"eth5\t00000000\t010200C0\t{rest}\t00000000", f"eth5\t000200C0\t00000000\t{rest}\t00FFFFFF",
            f"eth6\t000200C0\t00000000\t{rest}\t00FFFFFF")  # fmt: skip
    lines = ("Iface\tDestination\tGateway", *(f"{row}\t0\t0\t0  " for row in rows))
    put(host, "proc/net/route", "\n".join(lines))
    addresses = ("fd000000000000000000000000000002 02 40 00 80     eth5",
                 "fe800000000000000000000000000002 02 40 20 80     eth5")  # fmt: skip
    put(host, "proc/net/if_inet6", "\n".join(addresses))
    return "network interface eth5 (default route, route to 192.0.2.0/24, address fd00::2)"
