"""What other tools left, or will do by themselves, with devices of this host.

What each keeps: driverctl(8), a file for each override in /etc/driverctl.d, which udev sets anew; newer
ones, from 0.121 on, also write the device's ids to `new_id`, which no file shows
(Documentation/ABI/testing/sysfs-bus-pci). libvirt, a file for each domain (formatdomain, "hostdev"). Xen's
xl, the former driver's key in xenstore (libxl_pci.c). Proxmox VE, `hostpciN` in qm.conf(5).
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from hostdev_core.bus.pci import list_pci, read_override
from hostdev_core.doctor.files import names, said
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import read_records
from hostdev_core.inventory.unrecorded import UNHEARD, find_unrecorded
from hostdev_core.kernel.sysfs import PCI_DRIVERS

DRIVERCTL = Code(
    "driverctl-override",
    Level.NOTE,
    "driverctl binds devices at each boot and each hot-plug; a new one also tells the stub their ids",
    "nothing, where these are for guests: they return there after each loan; else"
    " `driverctl unset-override DEVICE`, while nobody has it",
)
BY_ID = Code(
    "bound-by-id",
    Level.NOTE,
    "A stub driver took devices by their ids (`new_id`, or `ids=`), and takes every other card with them",
    "`echo VENDOR DEVICE >/sys/bus/pci/drivers/vfio-pci/remove_id`, if nobody needs it",
)
LIBVIRT = Code(
    "libvirt-hostdevs",
    Level.NOTE,
    "libvirt lends devices by itself, and does not ask hostdev",
    "let one of both have a device: take it out with `virsh edit DOMAIN`, or leave it to libvirt",
)
XL = Code(
    "xl-assignable",
    Level.NOTE,
    "xl made devices assignable; hostdev does not touch them",
    "`xl pci-assignable-remove -r DEVICE`, to lend it with hostdev",
)
PROXMOX = Code(
    "proxmox-hostpci",
    Level.NOTE,
    "Proxmox VE lends devices by itself, and does not ask hostdev",
    "let one of both have a device: `qm set VMID --delete hostpci0`, or leave it to Proxmox",
)

_DRIVERCTL = "etc/driverctl.d"
_LIBVIRT = ("etc/libvirt/qemu", "etc/libvirt/libxl", "run/libvirt/qemu", "run/libvirt/libxl")
_PROXMOX = "etc/pve/qemu-server"
_HOSTPCI = re.compile(
    r"((?:hostpci|usb)[0-9]+): *(?=.*(?:host|mapping|[0-9a-f]{2}:[0-9a-f]{2}))(.*)"
)
_LARGEST = 1 << 20  # bytes of one file of a domain


def check_driverctl(host: Host) -> Iterator[Finding]:
    """Overrides that driverctl keeps: a file pci-0000:01:00.0 with the driver's name."""
    found = [
        said(
            host, f"{_DRIVERCTL}/{name}", (host.read_text(f"{_DRIVERCTL}/{name}", 64) or "").strip()
        )
        for name in names(host, _DRIVERCTL)
    ]
    if found:
        yield DRIVERCTL.found(*found)


def check_ids(host: Host) -> Iterator[Finding]:
    """Devices on a stub that has them by their ids: without a driver_override, and in no record.

    The ids that a driver was told cannot be read back: only what they did can be seen.
    """
    ids = {device.name: device.ids for device in list_pci(host.sysfs, tolerant=True)}
    taken: dict[tuple[str, str], list[str]] = {}
    for address, driver in _unrecorded(host):
        if driver not in UNHEARD and read_override(host.sysfs, address) is None:
            taken.setdefault((driver, ids.get(address, "")), []).append(address)
    for (driver, wanted), addresses in taken.items():
        place = host.sysfs.path(f"{PCI_DRIVERS}/{driver}/remove_id")
        yield BY_ID.found(
            *(f"{each} ({wanted}) is on {driver}, without driver_override" for each in addresses),
            remedy=f"`echo {wanted.replace(':', ' ')} >{place}`, if nobody needs it",
        )


def _unrecorded(host: Host) -> list[tuple[str, str]]:
    """Devices on stubs of which no record knows; none where the records cannot be read."""
    try:
        return [
            (each.address, each.kernel_driver) for each in find_unrecorded(host, read_records(host))
        ]
    except (NotPermittedError, StateError):
        return []  # the check of the records says so


def check_libvirt(host: Host) -> Iterator[Finding]:
    """Domains of libvirt, defined or running, that have devices of the host."""
    found: dict[str, None] = {}
    for folder in _LIBVIRT:
        for name in names(host, folder):
            if name.endswith(".xml"):
                text = host.read_text(f"{folder}/{name}", _LARGEST) or ""
                place = host.path(f"{folder}/{name}")
                found.update(dict.fromkeys(f"{place}: {row}" for row in _hostdevs(text)))
    if found:
        yield LIBVIRT.found(*found)


def _hostdevs(text: str) -> Iterator[str]:
    """The devices of the host in a domain's description, or the reason why they are not known."""
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        yield f"cannot be understood ({error})"
        return
    # A virtual function may be a network interface of the domain, too (formatdomain, "PCI Passthrough").
    for element in (*tree.iter("hostdev"), *tree.iterfind(".//interface[@type='hostdev']")):
        source = element.find("source")
        parts = element.iterfind("source/*") if source is not None else ()
        words = [f"{key}={value}" for part in parts for key, value in part.attrib.items()]
        managed = " managed" if element.get("managed") == "yes" else ""
        yield f"{element.tag} {element.get('type', '')}{managed} {' '.join(words)}".rstrip()


def check_xl(host: Host) -> Iterator[Finding]:
    """Devices that xl put on pciback: it binds by a slot, and keeps the former driver in xenstore."""
    if not host.is_dom0:
        return
    found = [
        f"{address} is on {driver}: {key}"
        for address, driver in _unrecorded(host)
        if driver in UNHEARD and read_override(host.sysfs, address) is None
        for key in [f"/libxl/pci/{address.replace(':', '-').replace('.', '-')}/driver_path"]
        if host.xenstore.read(key) is not None
    ]
    if found:
        yield XL.found(*found)


def check_proxmox(host: Host) -> Iterator[Finding]:
    """Machines of Proxmox VE that have devices of the host; its snapshots' sections follow the first."""
    found: list[str] = []
    for name in names(host, _PROXMOX):
        path = f"{_PROXMOX}/{name}"
        text = host.read_text(path, _LARGEST) or "" if name.endswith(".conf") else ""
        lines = f"\n{text}".partition("\n[")[0].splitlines()
        found += (said(host, path, line) for line in lines if _HOSTPCI.fullmatch(line))
    if found:
        yield PROXMOX.found(*found)


TOPIC = Topic(
    "Other tools",
    (DRIVERCTL, BY_ID, LIBVIRT, XL, PROXMOX),
    (check_driverctl, check_ids, check_libvirt, check_xl, check_proxmox),
)
