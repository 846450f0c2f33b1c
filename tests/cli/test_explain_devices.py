"""`hostdev explain DEVICE...` and `hostdev list --lendable`: every reason, for people and for programs."""

import json
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, addresses, run
from tests.helpers.terminal import check_fits, on_a_terminal
from tests.helpers.users import put
from tests.sample import DISK, NIC

pytestmark = pytest.mark.sample

CARD, SIBLING = "0000:09:00.0", "0000:09:00.1"


@pytest.fixture
def full(host: SimulatedHost) -> SimulatedHost:
    """A card with a sibling and a disk that is mounted, and one that is lent."""
    host.add_pci(CARD, kernel_driver="nvme", iommu_group=9, block="sdx", resets="flr")
    host.add_pci(SIBLING, kernel_driver="snd_hda_intel", iommu_group=9)
    number = Path(host.path("sys/class/block/sdx/dev")).read_text().strip()
    put(host, "proc/self/mountinfo", f"1 0 {number} / /srv rw - ext4 /dev/sdx rw\n")
    assert run(*QEMU, "prepare", "vm1", NIC, host=host).returncode == 0
    return host


def test_every_reason_is_told_with_what_passes_it(full: SimulatedHost) -> None:
    done = run(*QEMU, "explain", CARD, host=full)
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1] == "lend by qemu:///system no: 2 reasons"
    assert any(
        line.startswith("group-not-viable 0000:09:00.0 shares IOMMU group 9") for line in lines
    )
    assert any(line.startswith("in-use ") for line in lines)
    (passing,) = (line for line in lines if line.startswith("to pass it: "))
    command = passing.removeprefix("to pass it: `").removesuffix("`")
    assert command == f"hostdev --host {full.root} prepare --allow in-use DOMAIN {CARD}"
    assert "the host loses /srv on sdx" in lines
    assert f"IOMMU group 9, with {SIBLING} (snd_hda_intel)" in lines
    assert f"reset flr; VFIO's hot reset of its bus resets {SIBLING}, too" in lines


def test_the_options_of_a_prepare_change_the_answer(full: SimulatedHost) -> None:
    words = (*QEMU, "explain", CARD, "--whole-group", "--allow", "in-use")
    assert run(*words, host=full).returncode == 0
    assert run(*QEMU, "prepare", "vm2", *words[3:], host=full).returncode == 0


@pytest.mark.parametrize("columns", [80, 200])
def test_it_fits_a_terminal(full: SimulatedHost, columns: int) -> None:
    shown = on_a_terminal(*QEMU, "explain", "*", host=full, columns=columns)
    check_fits(shown, columns)
    assert "the host loses" in shown.text


def test_a_document_has_all_devices_that_were_meant(full: SimulatedHost) -> None:
    done = run(*QEMU, "explain", "0000:09:00.*", "sdx", NIC, "--json", host=full)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["uri"] == "qemu:///system"
    found = {each["device"]: each for each in document["devices"]}
    assert [*found] == [CARD, SIBLING, NIC]
    assert [reason["rule"] for reason in found[NIC]["reasons"]] == ["lent"]
    assert found[CARD]["losses"] == ["/srv on sdx"]
    assert found[CARD]["resets"] == {"methods": ["flr"], "along": [SIBLING]}


def test_nothing_is_changed_or_recorded(full: SimulatedHost) -> None:
    before, known = full.snapshot(), addresses(full)
    run(*QEMU, "explain", "*", host=full)
    assert (full.snapshot(), addresses(full)) == (before, known)


@pytest.mark.parametrize("word", ["nonsense", "0000:0f:00.0", "1-9"])
def test_what_is_not_there_is_said(full: SimulatedHost, word: str) -> None:
    done = run(*QEMU, "explain", word, host=full)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert word in done.stderr


def test_a_listing_of_what_can_be_lent_is_what_can_be_lent(full: SimulatedHost) -> None:
    done = run("list", "-q", "--lendable", "qemu:///system", host=full)
    assert done.returncode == 0
    names = done.stdout.split()
    assert DISK in names
    assert not {NIC, CARD, SIBLING} & {*names}
    assert run(*QEMU, "list", "-q", "--lendable", host=full).stdout.split() == names
    for name in names:
        assert run(*QEMU, "prepare", "vm3", name, host=full).returncode == 0
        assert run(*QEMU, "reattach", "vm3", host=full).returncode == 0


def test_a_driver_that_is_not_there_cannot_lend(full: SimulatedHost) -> None:
    done = run("list", "--lendable", "nobody:///system", host=full)
    assert done.returncode == 1
    assert "nobody" in done.stderr
