"""`hostdev plan` on a machine that has lent something: each device of the request has its line."""

import pytest

from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Untouched
from tests.helpers.cli_command import ask, run
from tests.sample import GPU, NIC, SOUND

pytestmark = pytest.mark.sample


def planned(host: SimulatedHost, *words: str) -> list[str]:
    with Untouched(host):
        done = run("plan", "vm1", *words, host=host)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_rest_of_a_group_is_taken_and_handed_over_later(host: SimulatedHost) -> None:
    lines = planned(host, GPU, "--whole-group")
    (sibling,) = (line for line in lines if line.startswith(SOUND))
    assert "on snd_hda_intel now, taken for its group only, returns as found after use" in sibling
    ask("prepare", "vm1", GPU, "--whole-group", host=host)
    assert planned(host, SOUND, "--whole-group") == [
        f"{SOUND}: taken with its group already; handed to the domain now"
    ]


def test_what_the_domain_has_already_needs_nothing(host: SimulatedHost) -> None:
    ask("prepare", "vm1", NIC, host=host)
    present, nothing = planned(host, NIC, "--same-owner")
    assert present.startswith(f"{NIC}: lent to domain 'vm1' of qemu")
    assert present.endswith(" already")
    assert nothing == "nothing to do"


def test_one_that_was_detached_is_on_its_stub_already(host: SimulatedHost) -> None:
    ask("device", "detach", NIC, host=host)
    about, nothing = planned(host, NIC)
    assert about.endswith(", goes to the inactive list after use")
    assert nothing == "  nothing is written: on its stub already"


def test_a_usb_device_is_reserved(host: SimulatedHost) -> None:
    about, nothing = planned(host, "1-1")
    assert about == "1-1: returns as found after use"
    assert nothing == "  nothing is written: it is reserved"
