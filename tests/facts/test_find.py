"""`hostdev show` finds devices by all names that they have, and by patterns for them."""

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, ask, run
from tests.helpers.in_use import machine as machine
from tests.helpers.users import CARD, HUB
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

NAMES = {
    "eth5": [CARD],
    "nvme0n1": [CARD],
    "/dev/nvme0n1p2": [CARD],
    "card0": [CARD],
    "/dev/dri/renderD128": [CARD],
    "0000:05:00.*": [CARD],
    "05:00.0": [CARD],
    "[ne]*0n1p?": [CARD],
    "1-?": ["1-1", "1-4"],
    f"{HUB} eth5 {CARD}": [HUB, CARD],
    "1-4 001:*": ["1-4", "1-1"],
}


@pytest.mark.parametrize("words", NAMES)
def test_a_device_is_found_by_each_of_its_names(machine: SimulatedHost, words: str) -> None:
    found = ask("show", *words.split(), host=machine)["devices"]
    assert [device["address"] for device in found] == NAMES[words]


def test_what_show_calls_names_finds_it(machine: SimulatedHost) -> None:
    (card,) = ask("show", CARD, host=machine)["devices"]
    assert card["names"][:3] == [CARD, "05:00.0", "eth5"]
    for name in card["names"]:
        assert ask("show", name, host=machine)["devices"][0]["address"] == CARD


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("eth7", 2, "'eth7' names no device; wanted: "),
        ("eth7", 2, "nor has the host a network interface, disk or DRM node of that name"),
        ("lo", 2, "'lo' names no device"),
        (
            "eth7*",
            1,
            "no device here has a name like 'eth7*'; `hostdev list` shows those there are",
        ),
        ("0000:77:00.0", 1, "there is no device 0000:77:00.0"),
    ],
)
def test_a_name_that_nothing_has_is_an_error(
    machine: SimulatedHost, word: str, code: int, said: str
) -> None:
    done = run("show", CARD, word, host=machine)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pattern_finds_records_of_what_is_gone(machine: SimulatedHost) -> None:
    run(*QEMU, "prepare", "vm1", NIC, host=machine)
    machine.unplug(NIC)
    found = ask("show", "0000:01:*", host=machine)
    assert (found["devices"], [each["address"] for each in found["absent"]]) == ([], [NIC])
