"""`hostdev list`: which devices, in which order, with which columns."""

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, ask, run
from tests.helpers.terminal import check_headers

pytestmark = [pytest.mark.sample, pytest.mark.quick_cases]

DISK, GPU, STUBBED = "0000:06:00.0", "0000:07:00.0", "0000:08:00.0"


@pytest.fixture
def varied(host: SimulatedHost) -> SimulatedHost:
    """One of each: lent, detached, gone, on a stub, driverless; a disk, a GPU, a network card by USB."""
    host.add_pci(
        DISK, id="144d:a80a", class_="010802", kernel_driver="nvme", iommu_group=6,
        block=("nvme0n1", "nvme0n1p1"), numa_node=1,
    )  # fmt: skip
    host.add_pci(GPU, id="1002:73bf", class_="030000", kernel_driver="amdgpu", drm=("card0",))
    host.add_pci(STUBBED, kernel_driver="vfio-pci", iommu_group=8)
    host.add_pci("0000:09:00.0", class_="ff0000", iommu_group=9)
    host.add_pci("0000:0a:00.0", kernel_driver="e1000e", iommu_group=10)
    run(*QEMU, "prepare", "vm1", "01:00.0", "0a:00.0", host=host)
    run(*QEMU, "device", "detach", "02:00.0", host=host)
    host.unplug("0000:0a:00.0")
    return host


CHOICES = {
    "--class nvme": ["0000:04:00.0", DISK],
    "--class NVMe --class audio": ["0000:03:00.1", "0000:04:00.0", DISK],
    "--class gpu": ["0000:03:00.0", GPU],
    "--class 0403": ["0000:03:00.1"],
    "--class usb": ["0000:00:14.0", "1-1", "1-2", "1-3"],
    "--driver nvme": ["0000:04:00.0", DISK],
    "--driver none --class ff": ["0000:09:00.0"],
    "--driver vfio-*": ["0000:01:00.0", "0000:02:00.0", STUBBED],
    "--group 3": ["0000:03:00.0", "0000:03:00.1"],
    "--group none": ["1-1", "1-2", "1-3"],
    "--state lent": ["0000:01:00.0"],
    "--state inactive --state foreign": ["0000:02:00.0", STUBBED],
    "--state host --class net": [],
    "--state free --class net": ["0000:05:00.0", STUBBED],
    "nvme0n1": [DISK],
    "144D a80a": [DISK],
    "logitech": ["1-1", "1-2"],
    "--class net --group 1": ["0000:01:00.0"],
    "--sort group --class gpu": ["0000:03:00.0", GPU],
    "--sort driver --class net --driver vfio-pci --driver igb": [
        "0000:05:00.0", "0000:01:00.0", "0000:02:00.0", STUBBED,
    ],
}  # fmt: skip


@pytest.mark.parametrize("words", CHOICES)
def test_only_what_is_asked_for_is_listed(varied: SimulatedHost, words: str) -> None:
    wanted = CHOICES[words]
    done = run("list", "-q", *words.split(), host=varied)
    assert (done.returncode, done.stdout.split()) == (0, wanted)
    found = ask("list", *words.split(), host=varied)
    assert [device["address"] for device in found["devices"]] == wanted
    if not wanted:
        assert "`hostdev list` shows those there are" in done.stderr


def test_a_device_that_is_gone_says_so_in_its_row(varied: SimulatedHost) -> None:
    (row,) = (
        line for line in run("list", host=varied).stdout.splitlines() if "0000:0a:00.0" in line
    )
    assert row.endswith("gone, for vm1 (qemu)")
    found = ask("list", "--state", "gone", host=varied)
    assert found["devices"] == []
    assert [each["use"]["code"] for each in found["absent"]] == ["gone"]
    assert "0000:0a:00.0" not in run("list", "-q", host=varied).stdout


def test_columns_are_those_that_are_asked_for(varied: SimulatedHost) -> None:
    names = "numa,state,address,names"
    lines = run("list", "--columns", names, DISK, host=varied).stdout.splitlines()
    check_headers(lines, ["NUMA", "STATE", "ADDRESS", "NAMES"])
    assert lines[1].split() == ["1", "host", DISK, "nvme0n1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--class nic", "'nic' is no class; wanted net, nvme, storage, gpu, audio, usb, bridge"),
        ("--class 0", "'0' is no class"),
        ("--group x", "'x' is no IOMMU group; wanted a number, or none"),
        ("--state busy", "'busy' is no state; there are: free, available, host, foreign,"),
        ("--columns address,nam", "'nam' is no column; there are: address, class,"),
        ("--columns ,", "'' is no column"),
        ("--sort speed", "'speed' is no column"),
    ],
)
def test_a_word_that_nothing_can_be_is_an_error(host: SimulatedHost, words: str, said: str) -> None:
    done = run("list", *words.split(), host=host)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_without_hwdata(varied: SimulatedHost) -> None:
    """Classes have names of our own; what brings the rest is said once."""
    from hostdev_core.facts.hardware_names import Names

    names = Names(None, None)
    assert (names.pci_class("010802"), names.pci_class("0c0330")) == ("NVMe", "USB ctrl")
    assert (names.pci_class("010700"), names.pci_class("3f0000")) == ("SAS", None)
    assert names.pci("8086:10d3") == (None, None)
    assert names.missing == ["pci.ids", "usb.ids"]
    assert "the package hwdata has them" in names.hint()
    assert "hwdata" not in run("list", host=varied).stderr
