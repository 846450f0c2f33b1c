"""The machine of the stories."""

from hostdev_core.simulated import SimulatedHost
from tests.lending.stories_model import VFIO, Card
from tests.sample import DISK, GPU, NIC, SOUND

BARE, PF, VF, XHCI = "0000:04:00.0", "0000:05:00.0", "0000:05:00.1", "0000:06:00.0"
STICK = "1-1"
CARDS = {
    NIC: Card("e1000e", power="auto"),
    DISK: Card("nvme", override="nvme"),
    GPU: Card("nouveau"),
    SOUND: Card("snd_hda_intel"),
    BARE: Card(None),
    PF: Card("igb"),
    VF: Card("igb"),
    XHCI: Card("xhci_hcd"),
}
GROUPS = {NIC: 1, DISK: 2, GPU: 3, SOUND: 3, BARE: 4, PF: 5, VF: 100, XHCI: 6}


def make_host(root: str) -> SimulatedHost:
    host = SimulatedHost.create(root)
    for name, card in CARDS.items():
        if name != VF:
            add_card(host, name, card)
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "1")
    host.add_usb(STICK, id="0951:1666", kernel_driver="usb-storage", controller=XHCI)
    return host


def add_card(host: SimulatedHost, name: str, card: Card) -> None:
    """Plug a card in as it is to be found."""
    host.add_pci(
        name,
        id=IDS[card.driver],
        class_="0c0330" if name == XHCI else "020000",
        kernel_driver=card.driver,
        iommu_group=GROUPS[name],
        driver_override=None if card.override == "(null)" else card.override,
        power_control=card.power,
        sriov_totalvfs=1 if name == PF else 0,
    )


IDS = {
    "e1000e": "8086:10d3",
    "nvme": "144d:a808",
    "nouveau": "10de:2204",
    "snd_hda_intel": "10de:1aef",
    "igb": "8086:1521",
    VFIO: "8086:1521",
    "xhci_hcd": "8086:a36d",
    None: "1af4:1110",
}
