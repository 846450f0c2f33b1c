"""Describe the uses of a network interface, in words; nothing here takes the device's lock or rtnl."""

import re
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hostdev_core.host import Host

_UP = 0x1  # IFF_UP, linux/if.h
_LINK_LOCAL = "20"  # IPV6_ADDR_LINKLOCAL, net/ipv6.h
_FLAGS = re.compile("0x[0-9a-f]{1,8}")
# Interface, target, gateway, flags, use counts, metric, mask; numbers are in the machine's byte order.
_ROUTE = re.compile(r"(\S+)\s+([0-9A-F]{8})\s+[0-9A-F]{8}(?:\s+\S+){4}\s+([0-9A-F]{8})\s.*")
# Address, index, prefix, scope, flags, interface.
_ADDRESS = re.compile(r"([0-9a-f]{32}) [0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+\s+(\S+)")
_ENOUGH = 1 << 16  # bytes; the table of a router may be much longer


def describe_interface(host: "Host", path: str, uppers: "Mapping[str, str]") -> str | None:
    """Describe the uses of the interface at `path`, as "eth0 (up, in bridge br0)"; None without any.

    `uppers` are what `find_uppers` has found on top of it.
    """
    words = find_interface_uses(host, path, uppers)
    name = path.rpartition("/")[2]
    return f"network interface {name} ({', '.join(words)})" if words else None


def find_interface_uses(host: "Host", path: str, uppers: "Mapping[str, str]") -> "list[str]":
    """Find the uses of the interface at `path`: "up", "in bridge br0", "default route", each in words.

    `uppers` as for `describe_interface`.
    """
    name = path.rpartition("/")[2]
    return [*_state(host, path), *uppers.values(), *_routes(host, name), *_addresses(host, name)]


def find_uppers(host: "Host", path: str) -> "dict[str, str]":
    """Find the interfaces on top of the one at `path` ("br0", "eth0.7"), each with words for it."""
    uppers: dict[str, str] = {}
    master = host.sysfs.link(f"{path}/master")
    if master is not None:
        kinds = {"bridge": "bridge ", "bonding": "bond "}
        kind = [
            word
            for folder, word in kinds.items()
            if host.sysfs.exists(f"class/net/{master}/{folder}")
        ]
        uppers[master] = f"in {''.join(kind)}{master}"
    for name in host.sysfs.names(path):
        if name.startswith("upper_"):
            upper = name.removeprefix("upper_")
            uppers.setdefault(upper, f"below {upper}")
    return uppers


def is_elsewhere(host: "Host", folder: str) -> bool:
    """Whether an interface of this `net` directory is in another network namespace.

    The kernel makes the directory with the first interface and removes it with the last. One that
    is elsewhere is not shown, and counts as a link of the directory all the same (fs/kernfs/inode.c).
    """
    shown = len(host.sysfs.folders(folder))
    return host.sysfs.exists(folder) and (shown == 0 or host.sysfs.links(folder) > shown + 2)


def _state(host: "Host", path: str) -> "Iterator[str]":
    flags = host.sysfs.glance(f"{path}/flags") or ""
    if _FLAGS.fullmatch(flags) and int(flags, 16) & _UP:
        yield "up"


def _routes(host: "Host", name: str) -> "Iterator[str]":
    """Yield the IPv4 routes of an interface; its addresses show in the routes to their networks."""
    for line in (host.glance_text("proc/net/route", _ENOUGH) or "").splitlines():
        if (row := _ROUTE.fullmatch(line)) and row[1] == name:
            target, mask = int(row[2], 16), int(row[3], 16)
            network = socket.inet_ntoa(struct.pack("=I", target))
            yield f"route to {network}/{mask.bit_count()}" if mask else "default route"


def _addresses(host: "Host", name: str) -> "Iterator[str]":
    """Yield the IPv6 addresses of an interface, without the link-local ones that each one has."""
    for line in (host.glance_text("proc/net/if_inet6", _ENOUGH) or "").splitlines():
        if (row := _ADDRESS.fullmatch(line)) and row[3] == name and row[2] != _LINK_LOCAL:
            yield f"address {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[1]))}"
