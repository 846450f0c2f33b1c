"""Every state that the doctor knows: a host that shows it, and one that nearly does."""

from pathlib import Path

import pytest

from hostdev_core.doctor.examine import CODES, examine
from hostdev_core.doctor.finding import Finding, Level
from hostdev_core.simulated import SimulatedHost
from tests.doctor.changes import Change, put
from tests.doctor.hosts import NOT_SHOWN, SHOWN
from tests.sample import DISK, NIC

pytestmark = pytest.mark.quick_cases

# Those of plugins, users, namespaces and modprobe are in test_elsewhere.py, `unread` in test_unread.py.
ELSEWHERE = {
    *("plugins-loaded", "plugin-broken", "plugin-required-missing", "plugin-not-installed"),
    *(
        "stub-unknown",
        "guard",
        "guard-missing",
        "not-root",
        "ledger-unseen",
        "run-not-the-hosts",
        "unread",
    ),
}


def examined(folder: Path, made: dict[str, bool], change: Change) -> dict[str, list[Finding]]:
    """What the doctor finds on a host with a network card and a disk that was changed so, by code."""
    host = SimulatedHost.create(folder / "host", **made)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(DISK, id="144d:a808", class_="010802", kernel_driver="nvme", iommu_group=2)
    change(host)
    before, records = host.snapshot(), host.writes()
    found: dict[str, list[Finding]] = {}
    for finding in examine(host):
        found.setdefault(finding.code, []).append(finding)
    assert (host.snapshot(), host.writes()) == (before, records)
    return found


@pytest.mark.parametrize("code", SHOWN)
def test_a_host_shows_it(tmp_path: Path, code: str) -> None:
    made, change, evidence, remedy = SHOWN[code]
    (finding,) = examined(tmp_path, made, change)[code]
    (known,) = (each for each in CODES if each.name == code)
    assert finding.level == known.level
    assert any(evidence in line for line in finding.evidence), finding
    assert remedy in finding.remedy
    assert bool(finding.remedy) >= (finding.level != Level.OK)


@pytest.mark.parametrize("code", NOT_SHOWN)
def test_a_host_that_is_near_it_does_not(tmp_path: Path, code: str) -> None:
    found = examined(tmp_path, *NOT_SHOWN[code])
    assert code not in found
    assert "unread" not in found, found["unread"]


def test_every_code_has_both() -> None:
    names = [code.name for code in CODES]
    assert len({*names}) == len(names)
    assert {*SHOWN} == {*NOT_SHOWN} == {*names} - ELSEWHERE


def test_a_host_that_is_well_has_no_problem_and_no_note(tmp_path: Path) -> None:
    found = examined(tmp_path, {}, lambda _: None)
    worse = [each for every in found.values() for each in every if each.level != Level.OK]
    assert [each.code for each in worse if each.code != "guard-missing"] == []


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("intel_iommu=off", "take `intel_iommu=off` out"),
        ("iommu=pt,off", "take `iommu=pt,off` out"),
        ("intel_iommu=on", "dmesg"),
        ("quiet", "add `intel_iommu=on`"),
    ],
)
def test_why_the_iommu_is_off(tmp_path: Path, words: str, remedy: str) -> None:
    def change(host: SimulatedHost) -> None:
        SHOWN["iommu-off"][1](host)
        path = Path(host.path("proc/cmdline"))
        path.chmod(0o644)
        path.write_text(f"root=/dev/sda1 {words}\n")

    (finding,) = examined(tmp_path, {"iommu": False}, change)["iommu-off"]
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("processor", "remedy"),
    [
        ("vendor_id : AuthenticAMD\nflags : svm\n", "AMD-Vi"),
        ("vendor_id : GenuineIntel\nflags : vmx hypervisor\n", "-device intel-iommu"),
        ("CPU implementer : 0x41\n", "SMMU"),
    ],
)
def test_how_a_host_gets_an_iommu(tmp_path: Path, processor: str, remedy: str) -> None:
    def change(host: SimulatedHost) -> None:
        path = Path(host.path("proc/cpuinfo"))
        path.chmod(0o644)
        path.write_text(processor)

    (finding,) = examined(tmp_path, {"iommu": False}, change)["iommu-absent"]
    assert remedy in finding.remedy


def test_libvirts_domains_name_their_devices_wherever_they_stand(tmp_path: Path) -> None:
    """Of all drivers, defined or running, as a device or as an interface; what is no XML is said."""
    usb = "<hostdev type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>"
    own = "<interface type='hostdev'><source><address type='pci' bus='0x5'/></source></interface>"

    def change(host: SimulatedHost) -> None:
        put("etc/libvirt/libxl/a.xml", f"<domain>{usb}<interface type='bridge'/></domain>")(host)
        put("run/libvirt/qemu/b.xml", f"<domstatus><domain>{own}</domain></domstatus>")(host)
        put("etc/libvirt/qemu/c.xml", "<domain>")(host)

    (finding,) = examined(tmp_path, {}, change)["libvirt-hostdevs"]
    rows = [row.partition("/libvirt/")[2] for row in finding.evidence]
    assert rows[0].startswith("qemu/c.xml: cannot be understood")
    assert rows[1:] == ["libxl/a.xml: hostdev usb id=0x1 id=0x2",
                        "qemu/b.xml: interface hostdev type=pci bus=0x5"]  # fmt: skip


def test_what_the_firmware_says_of_interrupts_is_evidence(tmp_path: Path) -> None:
    def change(host: SimulatedHost) -> None:
        SHOWN["interrupt-remapping-off"][1](host)
        table = Path(host.path("sys/firmware/acpi/tables/DMAR"))
        data = bytearray(table.read_bytes())
        data[37] = 0
        table.chmod(0o600)
        table.write_bytes(data)

    (finding,) = examined(tmp_path, {}, change)["interrupt-remapping-off"]
    assert "the firmware has interrupt remapping turned off" in finding.evidence[-1]
