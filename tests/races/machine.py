"""The machine that everybody fights over, and what is known of it."""

from itertools import count
from typing import NamedTuple

from hostdev_core.simulated import SimulatedHost

VFIO = "vfio-pci"


class Shelf(NamedTuple):
    """The devices of a machine by what may be done with them.

    `pci` are the functions that can be lent, in IOMMU groups of one to three; `flapping` those that
    are pulled out and plugged in again; `usb` are ports.
    """

    pci: list[str]
    flapping: list[str]
    usb: list[str]


def make_machine(root: str, devices: int) -> Shelf:
    """A machine with about this many devices."""
    host = SimulatedHost.create(root)
    shelf = Shelf([], [], [])
    numbers = count(1)
    while len(shelf.pci) + len(shelf.flapping) + len(shelf.usb) < devices:
        number = next(numbers)
        _add_singles(host, shelf, number)
        _add_groups(host, shelf, number)
        if number % 4 == 1:
            _add_functions(host, shelf, number)
            _add_sticks(host, shelf, number)
    return shelf


def plug(host: SimulatedHost, address: str) -> None:
    """Plug in a card that flaps; at its address it is always the same model."""
    number, slot = int(address[:4], 16), int(address[8:10], 16)
    host.add_pci(address, kernel_driver="e1000e", iommu_group=number * 16 + slot)


def _add_singles(host: SimulatedHost, shelf: Shelf, number: int) -> None:
    """In groups of their own: on a driver, with an override, on none, on vfio-pci; one that flaps."""
    group = number * 16
    host.add_pci(
        _at(number, 1), kernel_driver="e1000e", iommu_group=group + 1, power_control="auto"
    )
    host.add_pci(
        _at(number, 2),
        id="144d:a808",
        class_="010802",
        kernel_driver="nvme",
        iommu_group=group + 2,
        driver_override="nvme",
    )
    host.add_pci(_at(number, 3), iommu_group=group + 3)
    host.add_pci(_at(number, 4), kernel_driver=VFIO, iommu_group=group + 4, driver_override=VFIO)
    shelf.pci.extend(_at(number, slot) for slot in range(1, 5))
    plug(host, _at(number, 5))
    shelf.flapping.append(_at(number, 5))


def _add_groups(host: SimulatedHost, shelf: Shelf, number: int) -> None:
    """A GPU with its sound card, and three in one group."""
    group = number * 16
    gpu, sound = _at(number, 6), _at(number, 6, 1)
    host.add_pci(
        gpu, id="10de:2204", class_="030000", kernel_driver="nouveau", iommu_group=group + 6
    )
    host.add_pci(
        sound, id="10de:1aef", class_="040300", kernel_driver="snd_hda_intel", iommu_group=group + 6
    )
    three = [_at(number, 7, function) for function in range(3)]
    for address, driver in zip(three, ("e1000e", "e1000e", None), strict=True):
        host.add_pci(address, kernel_driver=driver, iommu_group=group + 7)
    shelf.pci.extend([gpu, sound, *three])


def _add_functions(host: SimulatedHost, shelf: Shelf, number: int) -> None:
    """A physical function with two virtual ones."""
    physical = _at(number, 8)
    host.add_pci(
        physical, id="8086:1521", kernel_driver="igb", iommu_group=number * 16 + 8, sriov_totalvfs=2
    )
    host.sysfs.write(f"bus/pci/devices/{physical}/sriov_numvfs", "2")
    shelf.pci.extend(_at(number, 8, function) for function in range(3))


def _add_sticks(host: SimulatedHost, shelf: Shelf, number: int) -> None:
    """Two USB sticks and their controller, which can be lent itself."""
    controller = _at(number, 9)
    host.add_pci(
        controller,
        id="8086:a36d",
        class_="0c0330",
        kernel_driver="xhci_hcd",
        iommu_group=number * 16 + 9,
    )
    for port in (f"{number}-1", f"{number}-2"):
        host.add_usb(port, id="0951:1666", kernel_driver="usb-storage", controller=controller)
        shelf.usb.append(port)
    shelf.pci.append(controller)


def _at(number: int, slot: int, function: int = 0) -> str:
    return f"{number:04x}:00:{slot:02x}.{function}"
