"""libvirt as a neighbour: what it has detached, and what its domains run with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostdev_core import DeviceInUseError, HostdevError

from . import inside, machines
from .guest import Guest, wait_until
from .world import call, kernel_drivers, settled, world

pytestmark = pytest.mark.case("beside libvirtd", tool="libvirt")

NIC, NIC2 = machines.NIC, machines.NIC2
DOMAIN = """
<domain type='qemu'>
  <name>theirs</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0' bus='1' slot='0' function='0'/></source>
    </hostdev>
    <memballoon model='none'/>
  </devices>
</domain>
"""
"""Of NIC."""
SETTINGS = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
namespaces = []
"""
"""Of /etc/libvirt/qemu.conf: there is no virtlogd, no systemd, and /dev is shared."""


@pytest.fixture(scope="module")
def libvirt(bare: Guest) -> Iterator[Guest]:
    """The bare machine with a running libvirtd, which starts its QEMUs as root."""
    bare.check(
        "modprobe vfio-pci; id -u libvirt-qemu || useradd -rU libvirt-qemu; mkdir -p /etc/libvirt"
        f" && cat > /etc/libvirt/qemu.conf <<'EOF'\n{SETTINGS}EOF"
    )
    daemon = bare.start("exec libvirtd")
    try:
        wait_until(bare, "virsh list", timeout=120)
        yield bare
    finally:
        daemon.kill()
        daemon.wait()


def node(address: str) -> str:
    """What libvirt calls a device."""
    return f"pci_{address.replace(':', '_').replace('.', '_')}"


def test_a_device_that_libvirt_detached_stays_on_its_stub(libvirt: Guest) -> None:
    libvirt.check(f"virsh nodedev-detach {node(NIC2)}")
    before = world(libvirt)
    assert before[f"{NIC2} driver"] == "vfio-pci"
    call(libvirt, inside.prepare, "vm1", [NIC2])
    assert call(libvirt, inside.reattach, "vm1") == (NIC2,)
    assert world(libvirt) == before
    libvirt.check(f"virsh nodedev-reattach {node(NIC2)}")


def test_libvirtd_detaches_a_device_while_it_is_being_lent(libvirt: Guest) -> None:
    """Whoever is first: it is lent or refused, and is home again when both have given it back."""
    before = world(libvirt)
    for tenths in range(0, 10, 2):
        theirs = libvirt.start(f"sleep 0.{tenths}; virsh nodedev-detach {node(NIC2)}")
        try:
            call(libvirt, inside.prepare, "vm1", [NIC2])
        except HostdevError as error:
            assert NIC2 in str(error)  # noqa: PT017 (either is right)
        theirs.wait()
        lent = call(libvirt, inside.lists).active
        assert lent in ({}, {NIC2: "vm1"})
        assert {*call(libvirt, inside.records)} == {*lent}
        if lent:
            assert call(libvirt, inside.reattach, "vm1") == (NIC2,)
        libvirt.check(f"virsh nodedev-reattach {node(NIC2)}")
        assert settled(libvirt, before) == before


def test_a_device_of_a_libvirt_domain_is_refused(libvirt: Guest) -> None:
    libvirt.check(
        f'cat > /run/theirs.xml <<"EOF"\n{DOMAIN}\nEOF\nvirsh create --paused /run/theirs.xml'
    )
    try:
        pid = libvirt.check("cat /run/libvirt/qemu/theirs.pid")
        before = world(libvirt)
        with pytest.raises(DeviceInUseError, match=f"pid {pid}"):
            call(libvirt, inside.prepare, "vm1", [NIC])
        assert world(libvirt) == before
    finally:
        libvirt.check("virsh destroy theirs")
    assert kernel_drivers(libvirt, NIC) == ["e1000e"]
    call(libvirt, inside.prepare, "vm1", [NIC])
    assert call(libvirt, inside.reattach, "vm1") == (NIC,)
