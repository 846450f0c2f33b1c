"""Several processes want the same at the same moment: one gets it, the others hear of it at once."""

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import SPAWN, race
from tests.sample import DISK, GPU, NIC, SOUND, add_pair

ROUNDS = 100


def run_race(host: SimulatedHost, wanted: list[tuple[list[str], str]], times: int) -> list[str]:
    barrier, results = SPAWN.Barrier(len(wanted)), SPAWN.Queue()
    racers = [
        SPAWN.Process(
            target=race,
            args=(host.root, devices, f"vm{number}", times, uri, barrier, results),
        )
        for number, (devices, uri) in enumerate(wanted)
    ]
    for racer in racers:
        racer.start()
    try:
        outcomes = dict(results.get(timeout=300) for _ in racers)
    finally:
        for racer in racers:
            racer.join(5)
            racer.kill()
            racer.join()
    return [outcomes[f"vm{number}"] for number in range(len(wanted))]


def check_race(
    host: SimulatedHost, wanted: list[tuple[list[str], str]], times: int = ROUNDS
) -> None:
    before = host.snapshot()
    outcomes = run_race(host, wanted, times)
    assert all(len(each) == times for each in outcomes), (
        outcomes
    )  # an error is longer than a letter
    rounds = [*zip(*outcomes, strict=True)]
    assert all(sorted(ends) == ["L"] * (len(wanted) - 1) + ["W"] for ends in rounds), outcomes
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_the_same_device(host: SimulatedHost) -> None:
    check_race(host, [([NIC], "qemu:///system"), ([NIC], "qemu:///system")])


def test_the_same_device_for_two_hypervisors(host: SimulatedHost) -> None:
    check_race(host, [([NIC], "qemu:///system"), ([NIC], "other:///system")], 25)


@pytest.mark.long
def test_two_devices_of_one_group(host: SimulatedHost) -> None:
    add_pair(host)
    check_race(host, [([GPU], "qemu:///system"), ([SOUND], "qemu:///system")])


@pytest.mark.long
def test_several_devices_in_another_order(host: SimulatedHost) -> None:
    check_race(host, [([NIC, DISK], "qemu:///system"), ([DISK, NIC], "qemu:///system")], 25)
