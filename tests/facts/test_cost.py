"""What a listing reads: nothing of a device beyond a look at the host, and three classes at once."""

from hostdev_core.facts.facts import Facts
from hostdev_core.inventory.inventory import look
from hostdev_core.simulated import SimulatedHost
from tests.helpers.in_use import machine as machine


def reads_of(host: SimulatedHost, *, facts: bool) -> list[str]:
    read: list[str] = []
    host.watch_reads(read.append)
    if facts:
        found = Facts.of(host)
        assert [found.describe(device)["use"]["code"] for device in found.inventory.devices]
    else:
        look(host, tolerant=True)
    host.watch_reads(None)
    return read


def test_a_listing_reads_the_classes_once_and_no_more_of_a_device(machine: SimulatedHost) -> None:
    known = reads_of(machine, facts=False)
    more = [each for each in reads_of(machine, facts=True) if each not in known]
    folders = {class_: machine.sysfs.path(f"class/{class_}") for class_ in ("net", "block", "drm")}
    entries = [
        f"link {folder}/{name}"
        for class_, folder in folders.items()
        for name in machine.sysfs.names(f"class/{class_}")
    ]
    whole = [f"{what} {folder}" for folder in folders.values() for what in ("open", "list")]
    assert sorted(more) == sorted([*whole, *entries])


def test_nothing_is_read_of_a_device_on_which_its_driver_has_made_nothing(
    host: SimulatedHost,
) -> None:
    """However many there are."""
    few = len(reads_of(host, facts=True)) - len(reads_of(host, facts=False))
    for number in range(20):
        host.add_pci(f"0000:40:{number:02x}.0", kernel_driver="igb")
    many = len(reads_of(host, facts=True)) - len(reads_of(host, facts=False))
    assert many == few
