"""Which network interfaces the host needs: the default route's, and members of bonds and bridges."""

from collections.abc import Iterator

from hostdev_core import Host
from hostdev_guard.chains import Use, node_at, nodes_at
from hostdev_guard.mounts import read_proc
from hostdev_guard.rules import MEMBER, ROUTE

UP, REJECT = 0x1, 0x200  # RTF_UP, RTF_REJECT (linux/route.h)
CLASS = "class/net"


class Interfaces:
    """The interfaces of one host, in the network namespace of this process."""

    def __init__(self, host: Host) -> None:
        self.host = host
        sysfs = host.sysfs
        links = {name: sysfs.link(f"{CLASS}/{name}/master") for name in sysfs.names(CLASS)}
        self.masters = {name: master for name, master in links.items() if master is not None}

    def uses(self) -> Iterator[Use]:
        """What default routes go over, and what has members."""
        for subject, name in (*self._routes4(), *self._routes6()):
            yield Use(ROUTE, subject, tuple(nodes_at(self.host, [f"{CLASS}/{name}"])))
        for master in sorted({*self.masters.values()}):
            nodes = tuple(nodes_at(self.host, [f"{CLASS}/{master}"]))
            for node in nodes:
                yield Use(MEMBER, f"{self._kind(master)} has", tuple(self.below(node)))

    def below(self, node: str) -> Iterator[str]:
        """What an interface stands on: a VLAN's, the members of a bond, team or bridge."""
        folder, _, name = node.rpartition("/")
        if not folder.endswith("/net") or node_at(self.host, f"{CLASS}/{name}") != node:
            return
        entries = self.host.sysfs.names(node)
        lower = [entry.removeprefix("lower_") for entry in entries if entry.startswith("lower_")]
        members = [member for member, master in self.masters.items() if master == name]
        names = dict.fromkeys((*lower, *members))
        yield from nodes_at(self.host, (f"{CLASS}/{each}" for each in names))

    def _kind(self, master: str) -> str:
        """ "bond bond0": only a bond and a bridge have a folder that says so."""
        for kind, folder in (("bond", "bonding"), ("bridge", "bridge")):
            if self.host.sysfs.exists(f"{CLASS}/{master}/{folder}"):
                return f"{kind} {master}"
        return master

    def _routes4(self) -> Iterator[tuple[str, str]]:
        """Columns: interface, destination, gateway, flags, three more, mask; in hexadecimal."""
        for fields in self._rows("proc/net/route", skip=1, width=8):
            flags = int(fields[3], 16)
            if int(fields[1], 16) == int(fields[7], 16) == 0 and flags & (UP | REJECT) == UP:
                yield "the default route goes over", fields[0]

    def _routes6(self) -> Iterator[tuple[str, str]]:
        """Columns: destination and its length first; flags and interface last."""
        for fields in self._rows("proc/net/ipv6_route", skip=0, width=10):
            flags = int(fields[8], 16)
            if int(fields[0], 16) == int(fields[1], 16) == 0 and flags & (UP | REJECT) == UP:
                yield "the IPv6 default route goes over", fields[9]

    def _rows(self, path: str, *, skip: int, width: int) -> Iterator[list[str]]:
        """The rows of a table; a kernel without that protocol has none."""
        for line in (read_proc(self.host, path) or "").split("\n")[skip:]:
            if len(fields := line.split()) >= width:
                yield fields
