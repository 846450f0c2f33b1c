"""What `hostdev doctor` finds on real kernels: with VFIO, as Xen's dom0, and without an IOMMU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import inside, machines
from .guest import Guest
from .world import DEVICES, call

NIC = machines.NIC


def doctor(guest: Guest, *, code: int) -> dict[str, dict[str, Any]]:
    """The findings by their codes; the command ends with this exit code, and says nothing else."""
    done = guest.hostdev("doctor", "--json")
    assert (done.returncode, done.stderr) == (code, ""), done
    found = {each["code"]: each for each in json.loads(done.stdout)["findings"]}
    assert "unread" not in found, found["unread"]
    return found


@pytest.mark.case("what keeps devices from being lent: VFIO")
def test_a_host_with_vfio(bare: Guest) -> None:
    found = doctor(bare, code=0)
    on = " ".join(found["iommu-on"]["evidence"])
    assert "/sys/firmware/acpi/tables: DMAR (Intel VT-d)" in on
    assert "/sys/class/iommu: dmar0" in on
    assert "/proc/cmdline: intel_iommu=on" in on
    assert "IR-" in found["interrupt-remapping"]["evidence"][0]
    assert {"stub-ready", "records-true", "plugins-loaded", "groups"} <= {*found}
    # The chipset's SATA and SMBus share a group with its ISA bridge.
    assert machines.CHIPSET[1] in " ".join(found["groups-of-one-card"]["evidence"])
    assert not {"groups-without-acs", "unrecorded-on-stub", "bound-by-id"} & {*found}


@pytest.mark.case("what keeps devices from being lent: VFIO")
def test_what_others_have_bound_and_what_is_lent(bare: Guest) -> None:
    """driver_override and new_id leave the same device on the same stub, and are told apart."""
    bind = f"echo {NIC} > {DEVICES}/{NIC}/driver/unbind; modprobe vfio-pci"
    ids = bare.check(f"cat {DEVICES}/{NIC}/vendor {DEVICES}/{NIC}/device").replace("0x", "").split()
    back = (
        f"echo {NIC} > {DEVICES}/{NIC}/driver/unbind; echo {NIC} > /sys/bus/pci/drivers/e1000e/bind"
    )
    other = machines.NIC2
    bare.check(f"{bind}; echo vfio-pci > {DEVICES}/{NIC}/driver_override")
    bare.check(f"echo {NIC} > /sys/bus/pci/drivers/vfio-pci/bind")
    found = doctor(bare, code=0)
    assert NIC in found["unrecorded-on-stub"]["evidence"][0]
    assert "bound-by-id" not in found
    bare.check(f"echo > {DEVICES}/{NIC}/driver_override; {back}")
    bare.check(f"{bind}; echo {' '.join(ids)} > /sys/bus/pci/drivers/vfio-pci/new_id")
    try:
        found = doctor(bare, code=0)
        assert NIC in found["bound-by-id"]["evidence"][0]
        remedy = found["bound-by-id"]["remedy"].split("`")[1]
        bare.check(f"{remedy}; {back}")
    finally:
        bare.run(f"echo {' '.join(ids)} > /sys/bus/pci/drivers/vfio-pci/remove_id")
    call(bare, inside.prepare, "vm1", [other])
    found = doctor(bare, code=0)
    assert "1 record" in found["records-true"]["evidence"][0]
    assert not {"unrecorded-on-stub", "bound-by-id"} & {*found}
    bare.check(f"echo {other} > {DEVICES}/{other}/driver/unbind")
    found = doctor(bare, code=6)
    assert f"{other} is rebound" in found["record-drift"]["evidence"][0]
    call(bare, inside.reattach, "vm1")


@pytest.mark.case("what keeps devices from being lent: Xen's dom0")
def test_xens_dom0(dom0: Guest) -> None:
    found = doctor(dom0, code=0)
    told = " ".join(found["iommu-of-xen"]["evidence"])
    assert "/proc/xen/capabilities: control_d" in told
    assert "RMAD" in told
    assert "stub-ready" in found
    vfio = {"iommu-on", "iommu-off", "iommu-absent", "interrupt-remapping-off", "groups"}
    assert not vfio & {*found}
    nvme = machines.XEN_NVME
    dom0.check(f"modprobe xen-pciback; xl pci-assignable-add {nvme}")
    try:
        found = doctor(dom0, code=0)
        assert nvme in found["xl-assignable"]["evidence"][0]
        assert nvme in found["unrecorded-on-stub"]["evidence"][0]
    finally:
        dom0.check(f"xl pci-assignable-remove -r {nvme}")
    assert "xl-assignable" not in doctor(dom0, code=0)


@pytest.mark.parametrize(
    ("iommu", "code", "remedy"),
    [
        ("", "iommu-absent", "-device intel-iommu"),
        ("intel-iommu,intremap=off,caching-mode=on", "interrupt-remapping-off", "intremap"),
    ],
    ids=["none", "no interrupt remapping"],
)
def test_hosts_that_cannot_lend(tmp_path: Path, iommu: str, code: str, remedy: str) -> None:
    with Guest(tmp_path, machines.small(), iommu=iommu) as guest:
        guest.check("modprobe -a usbcore")
        found = doctor(guest, code=6)
        assert remedy in found[code]["remedy"]
        assert [each for each in found.values() if each["level"] == "problem"] == [found[code]]
