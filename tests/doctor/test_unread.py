"""A check that cannot read, or does not return, is a finding, and the others go on."""

import errno
import os
import time
from collections.abc import Callable
from fnmatch import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostdev_core.doctor.examine import examine
from hostdev_core.doctor.finding import Finding
from hostdev_core.simulated import SimulatedHost, make_sample
from tests.doctor.changes import put


def unread(host: SimulatedHost, **options: float) -> list[str]:
    """The evidence of what could not be seen."""
    return [
        row for each in examine(host, **options) if each.code == "unread" for row in each.evidence
    ]


def watcher(host: SimulatedHost, glob: str, act: Callable[[], object]) -> Callable[[str], None]:
    def watch(what: str) -> None:
        if fnmatch(what, f"* {host.path(glob)}"):
            act()

    return watch


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# What is read, and the checks that want it.
READS = {
    "proc/cmdline": {"acs", "iommu", "options", "stub", "interrupts", "noiommu"},
    "proc/interrupts": {"interrupts"},
    "proc/cpuinfo": {"processor"},
    "sys/firmware/acpi/tables": {"iommu"},
    "sys/class/iommu": {"iommu"},
    "etc/modprobe.d": {"options", "stub", "interrupts", "noiommu"},
    "dev/vfio": {"nodes"},
    "dev/vfio/vfio": {"nodes"},
    "dev/iommu": {"iommufd"},
    "etc/driverctl.d": {"driverctl"},
    "etc/libvirt/qemu": {"libvirt"},
    "etc/pve/qemu-server": {"proxmox"},
    "proc/self/limits": {"memlock"},
    "proc/meminfo": {"hugepages"},
    "proc/self/mountinfo": {"proc"},
    "sys/fs/selinux/enforce": {"security"},
    "sys/power/state": {"sleep"},
}


@pytest.mark.parametrize("path", READS)
def test_what_cannot_be_read_is_said_by_the_checks_that_want_it(
    host: SimulatedHost, path: str
) -> None:
    well = {finding.code for finding in examine(host)}
    host.watch_reads(watcher(host, path, fail))
    rows = unread(host)
    assert {row.partition(":")[0] for row in rows} == READS[path]
    assert all(host.path(path) in row and "unexpected" not in row for row in rows), rows
    assert "plugins-loaded" in well & {finding.code for finding in examine(host)}


def test_a_check_that_does_not_return_is_left(host: SimulatedHost) -> None:
    host.watch_reads(watcher(host, "etc/pve/*", lambda: time.sleep(600)))
    assert unread(host, patience=3.0) == ["proxmox: no answer within 3 s"]


def test_a_pipe_in_the_place_of_a_file_does_not_block(host: SimulatedHost) -> None:
    os.unlink(host.path("proc/cpuinfo"))
    os.mkfifo(host.path("proc/cpuinfo"))
    (row,) = unread(host)
    assert "no regular file" in row


TEXTS = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"<domain><hostdev/></domain>",
            b"hostpci0: 01:00",
            b"iommu=off intremap=off",
            b"[",
            b":\n:",
        ]
    ),
)
FILES = (
    "proc/cmdline", "proc/interrupts", "proc/cpuinfo", "proc/self/limits", "proc/self/status",
    "proc/meminfo", "proc/self/mountinfo", "etc/driverctl.d/pci-0000:01:00.0",
    "etc/libvirt/qemu/vm1.xml", "etc/pve/qemu-server/100.conf", "etc/modprobe.d/mine.conf",
    "sys/power/state", "sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
)  # fmt: skip


@pytest.fixture(scope="module")
def battered(tmp_path_factory: pytest.TempPathFactory) -> SimulatedHost:
    return make_sample(tmp_path_factory.mktemp("battered") / "host")


@pytest.mark.long
@settings(max_examples=10)
@given(texts=st.lists(TEXTS, min_size=len(FILES), max_size=len(FILES)))
def test_whatever_stands_in_the_files_no_check_stumbles(
    battered: SimulatedHost, texts: list[bytes]
) -> None:
    for path, text in zip(FILES, texts, strict=True):
        put(path, text)(battered)
    found: list[Finding] = examine(battered)
    rows = [row for each in found if each.code == "unread" for row in each.evidence]
    assert not [row for row in rows if "unexpected" in row or "no answer" in row]
