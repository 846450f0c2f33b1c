#!/usr/bin/env python3
"""A libvirt hook: hostdev lends what a domain wants before it starts, and takes it back afterwards.

Install it as /etc/libvirt/hooks/qemu (or in the folder qemu.d beside it), executable, with the
python3 of its first line one that has hostdev; then restart libvirtd or virtqemud. It takes care of

    <hostdev mode='subsystem' type='pci' managed='no'>    and <interface type='hostdev' managed='no'>
    <hostdev mode='subsystem' type='usb'>                 reserved; QEMU takes it from its driver

and leaves everything else to libvirt, PCI devices with managed='yes' too. For a device that is
attached to a running domain libvirt calls no hook. At a start and at the end it runs

    qemu NAME OPERATION SUB-OPERATION EXTRA    with the domain's XML on stdin

and does not start the domain when `prepare` fails; stderr goes to its log. A hook must not call
libvirt, which waits for it. Source: libvirt.org/hooks.html, libvirt.org/formatdomain.html.
"""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from hostdev_core import (
    Connection,
    Domain,
    Hostdev,
    HostdevError,
    InputError,
    PCIAddress,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    USBHostdev,
    open_connection,
)

LIMIT = 16 * 1024 * 1024  # bytes; libvirt's own limit for a message


def main(arguments: list[str]) -> int:
    """Do what libvirt asks for; its exit code. Nothing is printed: libvirt would take it for XML."""
    if len(arguments) < 2:
        print("usage: qemu NAME OPERATION ..., the domain's XML on stdin", file=sys.stderr)
        return 2
    name, operation = arguments[:2]
    if operation not in {"prepare", "release"}:
        return 0  # a failing `reconnect` would kill a running domain
    try:
        # A worker carries it out: libvirt does not wait for a kernel that does not come back.
        with open_connection(worker=True) as conn:
            if operation == "release":
                conn.reattach_hostdevs(name)
            else:
                lend(conn, read_domain(name, sys.stdin.buffer.read(LIMIT + 1)))
    except HostdevError as error:
        for line in told(error):
            print(f"hostdev: {operation} {name}: {line}", file=sys.stderr)
        return 1
    return 0


def lend(conn: Connection, domain: Domain) -> None:
    """libvirt starts no domain twice: what it has already is left of a `release` that never came."""
    if domain.hostdevs:
        conn.prepare_hostdevs(domain, PrepareFlags.ALLOW_SAME_OWNER)


def told(error: HostdevError) -> Iterator[str]:
    """An error, line by line: with those it is made of, and what could not be undone."""
    yield from str(error).splitlines()
    yield from getattr(error, "__notes__", ())
    if isinstance(error, ReattachError):
        yield from (f"  {part}" for part in error.exceptions)


def read_domain(name: str, data: bytes) -> Domain:
    """The domain of libvirt's XML, with the devices that are left to this hook."""
    if len(data) > LIMIT or b"<!DOCTYPE" in data:
        raise InputError(f"this is no domain XML of libvirt: more than {LIMIT} bytes, or a DOCTYPE")
    try:
        root = ET.fromstring(data)
        hostdevs = [hostdev for element in wanted(root) for hostdev in read_hostdev(element)]
    except (ET.ParseError, ValueError, LookupError) as error:  # the last: an unknown encoding
        raise InputError(f"this is no domain XML of libvirt: {error}") from error
    return Domain(name, hostdevs, uuid=root.findtext("uuid"))


def wanted(root: ET.Element) -> Iterator[ET.Element]:
    """The elements that ask for a device of the host."""
    yield from root.iterfind("devices/hostdev[@mode='subsystem']")
    yield from root.iterfind("devices/interface[@type='hostdev']")


def read_hostdev(element: ET.Element) -> Iterator[Hostdev]:
    """The device that is left to this hook, or none."""
    source = element.find("source")
    if source is None:
        return
    kind = "pci" if element.tag == "interface" else element.get("type")
    if kind == "usb":
        yield read_usb(source)
    elif kind == "pci" and element.get("managed") != "yes":
        driver = element.find("driver")
        stub = None if driver is None else driver.get("model")  # a VFIO variant driver
        yield PCIHostdev(address=read_address(source), stub=stub)


def read_address(source: ET.Element) -> PCIAddress:
    """<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>."""
    names = ("domain", "bus", "slot", "function")
    domain, bus, slot, function = (number(source, f"address/{name}") for name in names)
    if bus is None or slot is None:
        raise ValueError("a PCI hostdev has no address with bus and slot")
    return PCIAddress(domain or 0, bus, slot, function or 0)


def read_usb(source: ET.Element) -> USBHostdev:
    """By vendor and product, by bus and device, by bus and port, or by all of them."""
    bus, device = number(source, "address/bus"), number(source, "address/device")
    port = text_of(source, "address/port")  # "1.2": the way through the hubs, in decimal numbers
    if source.find("address") is not None and (bus is None or device is None is port):
        raise ValueError("the address of a USB hostdev has no bus and device, nor bus and port")
    vendor, product = number(source, "vendor/id"), number(source, "product/id")
    return USBHostdev(
        port=None if port is None else f"{bus}-{port}",
        bus=bus,
        device=device,
        vendor=None if vendor is None else f"{vendor:04x}",
        product=None if product is None else f"{product:04x}",
        startup_policy=source.get("startupPolicy", "mandatory"),  # type: ignore[arg-type]
    )


def number(source: ET.Element, path: str) -> int | None:
    """The attribute at `child/attribute`, as libvirt reads numbers: 0x0a, 10 or 012."""
    text = text_of(source, path)
    if text is not None and text.startswith("0") and text.isdigit():
        return int(text, 8)
    return None if text is None else int(text, 0)


def text_of(source: ET.Element, path: str) -> str | None:
    """The attribute at `child/attribute`."""
    child, _, attribute = path.partition("/")
    element = source.find(child)
    return None if element is None else element.get(attribute)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
