"""A ledger that was removed while devices are lent: they are named, and sent to the host's own driver."""

from __future__ import annotations

import json

from . import inside, machines
from .guest import Guest
from .nested_qemu import vfio_holder
from .world import DEVICES, call, hostdev, kernel_drivers, mac_address, settled, world

NIC, NVME = machines.NIC, machines.NVME


def test_what_no_record_knows_goes_home(bare: Guest) -> None:
    mac, found = mac_address(bare, NIC), world(bare)
    call(bare, inside.prepare, "vm1", [NIC, NVME])
    bare.check("rm -r /run/hostdev")
    for command in ("status", "list"):
        named = hostdev(bare, command)
        for address in (NIC, NVME):
            assert f"hostdev device reattach --to-host {address}" in named.stderr, named
    rows = json.loads(hostdev(bare, "status", "--json").stdout)["unrecorded"]
    assert rows == [{"address": name, "kernel_driver": "vfio-pci"} for name in (NIC, NVME)]
    for address, driver in ((NIC, "e1000e"), (NVME, "nvme")):
        sent = hostdev(bare, "device", "reattach", "--to-host", address)
        assert sent.stdout == f"{address} is on {driver}, the host's own driver\n", sent.stderr
    assert kernel_drivers(bare, NIC, NVME) == ["e1000e", "nvme"]
    assert settled(bare, found) == found
    assert mac_address(bare, NIC) == mac
    bare.check(f"udevadm settle; test -b /dev/$(ls {DEVICES}/{NVME}/nvme)n1")
    refused = hostdev(bare, "device", "reattach", "--to-host", NIC)
    assert (refused.returncode, "e1000e, which is no stub driver" in refused.stderr) == (1, True)


def test_one_that_a_hypervisor_has_is_not_sent_home(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC])
    bare.check("rm /run/hostdev/state.db*")
    with vfio_holder(bare, NIC) as pid:
        refused = hostdev(bare, "device", "reattach", "--to-host", NIC)
        assert (refused.returncode, f"pid {pid}" in refused.stderr) == (1, True), refused
        assert kernel_drivers(bare, NIC) == ["vfio-pci"]
    assert hostdev(bare, "device", "reattach", "--to-host", NIC).returncode == 0
    assert kernel_drivers(bare, NIC) == ["e1000e"]
