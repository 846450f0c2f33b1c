"""Which device has made which interface, disk or DRM node."""

import os
from pathlib import Path

from hostdev_core.facts.class_devices import read_class_devices
from hostdev_core.inventory.inventory import look
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask
from tests.helpers.in_use import STICK
from tests.helpers.in_use import machine as machine
from tests.helpers.users import CARD, HUB


def entry(host: SimulatedHost, class_: str, device: str, folder: str) -> None:
    """An entry of a class, as the kernel makes it below a device; a virtual one without a device."""
    place = (
        os.path.realpath(host.sysfs.path(device)) if device else host.sysfs.path("devices/virtual")
    )
    path = Path(place, folder)
    path.mkdir(parents=True)
    known = Path(host.sysfs.path(f"class/{class_}"), path.name)
    known.parent.mkdir(exist_ok=True)
    known.symlink_to(os.path.relpath(path, known.parent))


def names(host: SimulatedHost, address: str) -> list[list[str]]:
    (device,) = (each for each in ask("list", host=host)["devices"] if each["address"] == address)
    return [device[class_] for class_ in ("net", "block", "drm")]


def test_a_card_has_its_interface_disk_and_nodes_without_their_parts(
    machine: SimulatedHost,
) -> None:
    entry(machine, "drm", f"bus/pci/devices/{CARD}", "drm/card0/card0-DP-1")
    assert names(machine, CARD) == [["eth5"], ["nvme0n1"], ["card0", "renderD128"]]


def test_a_disk_by_usb_is_the_sticks_and_not_its_controllers(machine: SimulatedHost) -> None:
    stick = f"bus/usb/devices/{STICK}"
    entry(machine, "block", stick, f"{STICK}:1.0/host6/target6:0:0/6:0:0:0/block/sda")
    entry(machine, "block", stick, f"{STICK}:1.0/host6/target6:0:0/6:0:0:0/block/sda/sda1")
    assert names(machine, STICK) == [[], ["sda"], []]
    assert names(machine, HUB) == [[], [], []]
    assert ask("show", "/dev/sda1", host=machine)["devices"][0]["address"] == STICK


def test_what_is_of_no_device_is_left_out(machine: SimulatedHost) -> None:
    entry(machine, "net", "", "net/br0")
    entry(machine, "block", "", "block/dm-0")
    classes = read_class_devices(machine.sysfs, look(machine).by_kind)
    assert {*classes.by_device} == {("pci", CARD)}
    assert (classes.find("br0"), classes.find("dm-0"), classes.unread) == (None, None, None)


def test_a_path_to_an_nvme_disk_has_the_name_of_the_disk(machine: SimulatedHost) -> None:
    """The disk of several controllers stands below none of them (drivers/nvme/host/multipath.c)."""
    entry(machine, "block", f"bus/pci/devices/{HUB}", "nvme/nvme3/nvme3c3n1")
    assert names(machine, HUB) == [[], ["nvme3n1"], []]


def test_an_interface_that_is_called_as_its_class(machine: SimulatedHost) -> None:
    entry(machine, "net", f"bus/pci/devices/{HUB}", "net/net")
    entry(machine, "net", f"bus/pci/devices/{HUB}", "net/eth6")
    assert names(machine, HUB) == [["eth6", "net"], [], []]
