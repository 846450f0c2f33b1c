"""The table of known messages: each is found by its own wording, and by no other."""

import re
import shlex

import pytest

from hostdev_core.known_errors.entry import LONGEST, PLACES, KnownError, Symptom, Wording
from hostdev_core.known_errors.table import known_errors
from tests.docs.shell import check_hostdev

pytestmark = pytest.mark.quick_cases

ERRORS = known_errors()
WORDINGS = [(error, wording) for error in ERRORS for wording in error.wordings]
PLACE = re.compile(r"\{(\w+)\}")
VERSION = re.compile(r"\d+\.(\d+(\.\d+)?|x)")


def test_there_are_messages_of_each_program_and_for_each_symptom() -> None:
    assert len(ERRORS) >= 60
    programs = {error.program for error in ERRORS}
    assert programs == {"QEMU", "libvirt", "libxl", "Cloud Hypervisor", "Linux"}
    assert {error.symptom for error in ERRORS} == {*Symptom}


def test_every_name_is_there_once() -> None:
    names = [error.name for error in ERRORS]
    assert len({*names}) == len(names)
    assert not [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)]


@pytest.mark.parametrize(
    ("error", "wording"), WORDINGS, ids=[f"{e.name}: {w.pattern}" for e, w in WORDINGS]
)
def test_an_example_has_its_own_wording_and_no_other(error: KnownError, wording: Wording) -> None:
    found = [
        (other.name, each.pattern)
        for other, each in WORDINGS
        if each.compiled().search(wording.example)
    ]
    assert found == [(error.name, wording.pattern)]
    assert wording.anchor in wording.example


@pytest.mark.parametrize(("error", "wording"), WORDINGS, ids=[w.pattern for _, w in WORDINGS])
def test_a_pattern_is_plain_and_bounded(error: KnownError, wording: Wording) -> None:
    """It begins with a literal, which a search finds fast, and has at most one place of many words."""
    places = PLACE.findall(wording.pattern)
    assert {*places} <= {*PLACES}
    assert not wording.pattern.startswith("{")
    assert places.count("text") <= 1
    assert len(wording.anchor) >= 8
    assert len(wording.pattern) + 200 * len(places) <= LONGEST
    assert wording.pattern.isascii()
    assert wording.pattern == wording.pattern.rstrip()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.name)
def test_an_entry_is_whole(error: KnownError) -> None:
    for text in (error.cause, error.remedy):
        assert text.endswith((".", ")"))
    assert error.commands
    for wording in error.wordings:
        assert re.match(r"[\w./-]+\.(c|rs): \w", wording.source), wording.source
        assert VERSION.search(wording.versions), wording.versions


@pytest.mark.parametrize(
    "command",
    sorted({c for error in ERRORS for c in error.commands if c.startswith("hostdev ")}),
)
def test_the_commands_of_hostdev_are_there(command: str) -> None:
    check_hostdev(shlex.split(command.replace("DEVICE", "01:00.0"))[1:])


OTHER_VERSIONS = {
    "vfio: error: group 7 is not viable, please ensure all devices within": "qemu-group-not-viable",
    "vfio: failed to open /dev/vfio/7: No such file or directory": "qemu-group-node-missing",
    "vfio: failed to set iommu for container: Operation not permitted": "qemu-container-denied",
    "vfio_dma_map(0x56, 0x0, 0xa0000, 0x7f) = -12 (Cannot allocate memory)": "qemu-memlock",
    "libusb_open() failed with LIBUSB_ERROR_ACCESS": "qemu-usb-open",
    "pciback 0000:01:00.0: seizing device": "pciback-seizing",
    "nvidia 0000:01:00.0: Refused to change power state, currently in D3": "linux-refused-power",
    "vfio_ecap_init: 0000:01:00.0 hiding ecap 0x19@0x270": "linux-ecap-hidden",
    "vfio_bar_restore: 0000:01:00.0 reset recovery - restoring bars": "linux-bar-restored",
    "DMAR:[DMA Write] Request device [01:00.0] fault addr fe000 [fault reason 02] Present bit": (
        "linux-dmar-fault"
    ),
    "AMD-Vi: Event logged [IO_PAGE_FAULT device=01:00.0 domain=0x000e]": "linux-dmar-fault",
    "vfio-pci 0000:01:00.0: BAR 1 [mem 0xc0000000-0xcfffffff 64bit pref]: can't reserve [mem": (
        "linux-bar-reserve"
    ),
    "cannot limit locked memory to 18874368000: Operation not permitted": "libvirt-memlock",
    "libxl: error: libxl_pci.c:1234:do_pci_add: xc_assign_device failed: EPERM": (
        "libxl-assign-failed"
    ),
}


@pytest.mark.parametrize("line", OTHER_VERSIONS)
def test_a_line_as_other_versions_have_it(line: str) -> None:
    found = {error.name for error, wording in WORDINGS if wording.compiled().search(line)}
    assert found == {OTHER_VERSIONS[line]}
