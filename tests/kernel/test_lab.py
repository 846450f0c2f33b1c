"""The lab is what the other tests take it for."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from . import lab, machines
from .domu import console_log, pv_domain
from .guest import Guest, wait_until
from .guest_command import GuestError
from .nested_qemu import NestedQemu, vfio_holder

PCI = "/sys/bus/pci"


def kernel_driver(guest: Guest, address: str) -> str:
    return guest.run(f'basename "$(readlink {PCI}/devices/{address}/driver)"').stdout.strip()


@contextmanager
def on_stub(guest: Guest, address: str, module: str, stub: str) -> Generator[None]:
    """Bind the device to STUB with plain sysfs writes, and give it back."""
    device, home = f"{PCI}/devices/{address}", kernel_driver(guest, address)
    rebind = (
        "echo {address} > {pci}/drivers/{old}/unbind && echo {address} > {pci}/drivers/{new}/bind"
    )
    there = rebind.format(address=address, pci=PCI, old=home, new=stub)
    guest.check(f"modprobe {module} && echo {stub} > {device}/driver_override && {there}")
    assert kernel_driver(guest, address) == stub
    try:
        yield
    finally:
        back = rebind.format(address=address, pci=PCI, old=stub, new=home)
        guest.check(f"echo > {device}/driver_override && {back}")
    assert kernel_driver(guest, address) == home


def groups(guest: Guest) -> dict[str, set[str]]:
    """The devices of each IOMMU group."""
    found: dict[str, set[str]] = {}
    for path in guest.check("ls -d /sys/kernel/iommu_groups/*/devices/*").split():
        found.setdefault(path.split("/")[4], set()).add(path.split("/")[6])
    return found


def test_commands_have_output_and_exit_code_and_run_side_by_side(bare: Guest) -> None:
    done = bare.run("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    slow = bare.start("echo begun; sleep 300")
    assert bare.check("echo meanwhile") == "meanwhile\n"
    assert slow.running
    slow.kill()
    assert slow.wait().returncode == 128 + 9
    with pytest.raises(subprocess.TimeoutExpired):
        bare.run("sleep 300", timeout=1)


def test_python_has_the_packages_of_this_test_run(bare: Guest) -> None:
    source = "import sys, pytest; print(sys.executable, pytest.__file__, sys.pycache_prefix, sys.argv[1])"
    words = [bare.system.python, pytest.__file__, str(lab.bytecode_dir()), "word"]
    assert bare.python(source, "word").stdout.split() == words


def test_each_spare_device_has_its_own_group_and_the_chipset_shares_one(bare: Guest) -> None:
    found = list(groups(bare).values())
    for address in (machines.NIC, machines.NIC2, machines.NVME, machines.XHCI, *machines.MANY_NICS):
        assert {address} in found
    assert set(machines.CHIPSET) in found


def test_devices_are_on_their_drivers(bare: Guest) -> None:
    for address in (machines.NIC, machines.NIC2, *machines.MANY_NICS):
        assert kernel_driver(bare, address) == "e1000e"
    assert kernel_driver(bare, machines.NVME) == "nvme"
    assert kernel_driver(bare, machines.XHCI) == "xhci_hcd"


def test_usb_has_a_stick_and_two_equal_mice(bare: Guest) -> None:
    lines = bare.check("lsusb").splitlines()
    ids = [line.split()[5] for line in lines]
    assert ids.count("46f4:0001") == 1
    assert ids.count("0627:0001") == 2


def test_vfs_can_be_made(bare: Guest) -> None:
    device = f"{PCI}/devices/{machines.NVME}"
    bare.check(f"echo 2 > {device}/sriov_numvfs")
    try:
        vfs = bare.check(f"readlink {device}/virtfn0 {device}/virtfn1").split()
        names = [vf.split("/")[-1] for vf in vfs]
        assert names == ["0000:03:00.1", "0000:03:00.2"]
        assert all({name} in groups(bare).values() for name in names)
    finally:
        bare.check(f"echo 0 > {device}/sriov_numvfs")


def test_hot_plug(bare: Guest) -> None:
    device = f"{PCI}/devices/{machines.FREE_ADDRESS}"
    bare.monitor(f"device_add e1000e,id=hot,bus={machines.FREE_PORT},romfile=")
    wait_until(bare, f"test -e {device}/driver")
    bare.monitor("device_del hot")
    wait_until(bare, f"test ! -e {device}")


def test_a_nested_qemu_takes_a_device(bare: Guest) -> None:
    arguments = ["-device", f"vfio-pci,host={machines.NIC},id=lent"]
    with on_stub(bare, machines.NIC, "vfio-pci", "vfio-pci"), NestedQemu(bare, arguments) as qemu:
        assert bare.check(f"readlink /proc/{qemu.pid}/exe") == "/usr/bin/qemu-system-x86_64\n"
        ids = [device["id"] for device in qemu.pci_devices() if device["qdev_id"] == "lent"]
        assert [(each["vendor"], each["device"]) for each in ids] == [(0x8086, 0x10D3)]


def test_a_nested_qemu_that_is_refused_says_why(bare: Guest) -> None:
    with pytest.raises(GuestError, match="No such file"):
        NestedQemu(bare, ["-device", f"vfio-pci,host={machines.NIC}"])
    assert kernel_driver(bare, machines.NIC) == "e1000e"


def test_an_unbind_waits_for_the_holder(bare: Guest) -> None:
    driver = f"{PCI}/drivers/vfio-pci"
    with on_stub(bare, machines.NIC2, "vfio-pci", "vfio-pci"):
        with vfio_holder(bare, machines.NIC2) as pid:
            assert "anon_inode:[vfio-device]" in bare.check(f"readlink /proc/{pid}/fd/*")
            waits = "blocked until released by user"
            before = bare.dmesg().count(waits)
            unbind = bare.start(f"echo {machines.NIC2} > {driver}/unbind")
            wait_until(bare, f"[ $(dmesg | grep -c '{waits}') -gt {before} ]")
            assert unbind.running
        assert unbind.wait().returncode == 0
        bare.check(f"echo {machines.NIC2} > {driver}/bind")


def test_xen_runs_and_has_no_groups(dom0: Guest) -> None:
    version = "4.20" if dom0.system.suite else "4.17"
    assert f"xen_version            : {version}" in dom0.check("xl info")
    assert dom0.check("ls /sys/kernel/iommu_groups") == ""
    assert dom0.check("modprobe xen-pciback && xl pci-assignable-list") == ""
    assert kernel_driver(dom0, machines.XEN_NIC) == "e1000e"
    assert kernel_driver(dom0, machines.XEN_NVME) == "nvme"
    assert kernel_driver(dom0, machines.XEN_XHCI) == "xhci_hcd"


def test_a_pv_domain_drives_a_device(dom0: Guest) -> None:
    slot = f"echo {machines.XEN_NIC} > {PCI}/drivers/pciback"
    with on_stub(dom0, machines.XEN_NIC, "xen-pciback", "pciback"):
        assert dom0.check("xl pci-assignable-list").split() == [machines.XEN_NIC]
        with pv_domain(dom0, "guest1", [machines.XEN_NIC]) as domid:
            assert "0x8086:0x10d3 driver=e1000e" in dom0.check(f"cat {console_log('guest1')}")
            key = f"/local/domain/0/backend/pci/{domid}/0/dev-0"
            assert dom0.check(f"xenstore-read {key}").strip() == machines.XEN_NIC
    dom0.check(f"{slot}/remove_slot")
