"""What a process or a container uses on a real kernel is seen before anything is written."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

from . import inside, machines
from .guest import Guest, wait_until
from .test_users import BUSYBOX, having_open, running
from .world import DEVICES, call, hostdev, kernel_drivers

NIC, MOUSE = machines.NIC2, "0627:0001"
CLAIM = """
import fcntl, os, struct, sys
fd, interface = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2])
DRIVER_GOES, CLAIM = 0x5516, 0x8004550f  # USBDEVFS_DISCONNECT by USBDEVFS_IOCTL, linux/usbdevice_fs.h
fcntl.ioctl(fd, 0xc0105512, struct.pack("iiP", interface, DRIVER_GOES, 0))
fcntl.ioctl(fd, CLAIM, struct.pack("I", interface))
print(os.getpid(), flush=True)
os.read(0, 1) or __import__("time").sleep(1000)
"""


@contextmanager
def on_uio(guest: Guest, address: str) -> Generator[None]:
    """A card is on uio_pci_generic, as a program of DPDK has it."""
    (home,) = kernel_drivers(guest, address)
    take = f"echo {address} > {DEVICES}/{address}/driver/unbind"
    own = f"{DEVICES}/{address}/driver_override"
    guest.check(
        f"modprobe uio_pci_generic; echo uio_pci_generic > {own}; {take}"
        f"; echo {address} > /sys/bus/pci/drivers/uio_pci_generic/bind; udevadm settle; ls /dev/uio0"
    )
    yield
    guest.check(
        f"echo > {own}; {take}; echo {address} > /sys/bus/pci/drivers/{home}/bind; udevadm settle"
    )


def test_a_program_has_its_card_by_uio(spare: Guest) -> None:
    with on_uio(spare, NIC):
        with having_open(spare, "/dev/uio0") as pid:
            assert call(spare, inside.seen, "/dev/uio0").holders[0].pid == int(pid)
            for words in (("plan", "vm1"), ("prepare", "vm1"), ("device", "detach")):
                refused = hostdev(spare, *words, NIC)
                assert refused.returncode != 0
                assert f"(sleep (pid {pid}, /dev/uio0)) [in-use]\n" in refused.stderr
            assert kernel_drivers(spare, NIC) == ["uio_pci_generic"]
        assert hostdev(spare, "prepare", "vm1", NIC).returncode == 0
        assert hostdev(spare, "reattach", "vm1").returncode == 0
        assert kernel_drivers(spare, NIC) == ["uio_pci_generic"]


def test_all_processes_of_a_machine_are_seen(spare: Guest) -> None:
    """By its root, in its first PID namespace; in another one, or by who may not look, they are not."""
    nobody = call(spare, inside.seen, "/dev/full")
    assert (nobody.found, nobody.cut, nobody.hidden) == ((), None, None)
    source = (
        "import os, sys; from hostdev_core.kernel.processes import find_identity, find_openers;"
        "os.setuid(int(sys.argv[1])); print(find_openers({find_identity('/dev/full')}).hidden)"
    )
    inner = spare.check(f"unshare --pid --fork --mount-proc {spare.python_command(source, '0')}")
    assert inner == "processes outside this PID namespace are not seen\n"
    assert "may not be looked at" in spare.check(spare.python_command(source, "65534"))


def test_its_interface_is_in_a_container(spare: Guest) -> None:
    path = f"{DEVICES}/{NIC}/net"
    name = spare.check(f"udevadm settle; ls {path}").strip()
    container = spare.start("echo $$; exec unshare -n sleep 600")
    pid = container.first_line()
    ip = f"{BUSYBOX} ip"
    try:
        wait_until(spare, f"[ $(readlink /proc/{pid}/ns/net) != $(readlink /proc/self/ns/net) ]")
        spare.check(f"{ip} link set {name} netns {pid}")
        assert spare.check(f"ls {path}") == ""
        refused = hostdev(spare, "prepare", "vm1", NIC)
        assert refused.returncode != 0
        assert f"sleep (pid {pid})" in refused.stderr
        assert "[other-namespace]\n" in refused.stderr
        assert spare.check(f"nsenter -t {pid} -n {ip} link show {name}")
        allowed = hostdev(spare, "plan", "vm1", NIC, "--allow", "other-namespace")
        assert allowed.returncode == 0
        spare.check(f"nsenter -t {pid} -n {ip} link set {name} netns 1")
    finally:
        container.kill()
    wait_until(spare, f"[ -e {path}/{name} ]")
    assert hostdev(spare, "plan", "vm1", NIC).returncode == 0


@contextmanager
def claimed(guest: Guest, port: str, node: str) -> Generator[str]:
    """A process has claimed the first interface of a USB device, as a QEMU does; its pid."""
    process = guest.start(guest.python_command(CLAIM, node, "0"))
    yield process.first_line().strip()
    process.kill()
    process.wait()
    guest.check(f"echo {port}:1.0 > /sys/bus/usb/drivers_probe")
    wait_until(guest, f"[ -e /sys/bus/usb/devices/{port}:1.0/driver ]")


def test_a_guest_has_a_usb_device(spare: Guest) -> None:
    """Outside the ledger it is held; a lent one stays lent, also for who has its node open only."""
    rows = json.loads(hostdev(spare, "list", "--json").stdout)["devices"]
    port = next(row["address"] for row in rows if row.get("ids") == MOUSE)
    where = f"/sys/bus/usb/devices/{port}"
    node = spare.check(f"printf /dev/bus/usb/%03d/%03d $(cat {where}/busnum {where}/devnum)")
    with claimed(spare, port, node) as pid:
        assert spare.check(f"basename $(readlink {where}:1.0/driver)") == "usbfs\n"
        refused = hostdev(spare, "prepare", "vm1", port, "--allow", "in-use")
        assert refused.returncode != 0
        assert f"{port} is held by " in refused.stderr
        assert f"(pid {pid}, {node})" in refused.stderr
    with having_open(spare, node):
        assert hostdev(spare, "prepare", "vm1", port).stderr.endswith("--allow in-use\n")
    assert hostdev(spare, "prepare", "vm1", port).returncode == 0
    with claimed(spare, port, node) as pid:
        kept = hostdev(spare, "reattach", "vm1")
        assert kept.returncode != 0
        assert f"(pid {pid}, {node})" in kept.stderr
        assert call(spare, inside.lists).usb == {port: "vm1"}
    with having_open(spare, node) as opener:
        kept = hostdev(spare, "reattach", "vm1")
        assert f"(pid {opener}, {node})" in kept.stderr
        assert call(spare, inside.lists).usb == {port: "vm1"}
    assert hostdev(spare, "reattach", "vm1").returncode == 0


@contextmanager
def in_a_chroot(guest: Guest, node: str) -> Generator[int]:
    """A process has this device open by a node of its own, in a chroot; its pid."""
    jail = "/srv/jail"
    guest.check(
        f"mkdir -p {jail}/dev {jail}/bin; cp /bin/busybox {jail}/bin/;"
        f" mknod {jail}/dev/own c $(stat -c '0x%t 0x%T' {node})"
    )
    script = "exec 9<>/dev/own; echo $$; exec /bin/busybox sleep 1000"
    try:
        with running(guest, f"exec chroot {jail} /bin/busybox sh -c '{script}'") as pid:
            yield pid
    finally:
        guest.check(f"rm -r {jail}")


def test_who_has_a_node_of_its_own_is_seen(spare: Guest) -> None:
    rows = json.loads(hostdev(spare, "list", "--json").stdout)["devices"]
    port = next(row["address"] for row in rows if row.get("ids") == MOUSE)
    where = f"/sys/bus/usb/devices/{port}"
    node = spare.check(f"printf /dev/bus/usb/%03d/%03d $(cat {where}/busnum {where}/devnum)")
    with in_a_chroot(spare, node) as pid:
        refused = hostdev(spare, "prepare", "vm1", port)
        assert refused.returncode == 1
        assert f"(pid {pid}, /srv/jail/dev/own)" in refused.stderr
        assert hostdev(spare, "prepare", "vm1", port, "--allow", "in-use").returncode == 0
        kept = hostdev(spare, "reattach", "vm1")
        assert f"(pid {pid}, /srv/jail/dev/own)" in kept.stderr
        assert call(spare, inside.lists).usb == {port: "vm1"}
    assert hostdev(spare, "reattach", "vm1").returncode == 0
