"""A simulated machine as a Host: all that hostdev uses of one, without plugging and breaking things."""

import errno
import os
import re
import stat
from functools import cached_property

from hostdev_core import __version__
from hostdev_core.errors import InputError, not_permitted
from hostdev_core.host import Host
from hostdev_core.kernel.processes import Holder, Identity, Search
from hostdev_core.kernel.vfio import CONTAINER, RefusedError
from hostdev_core.kernel.xenstore import Xenstore
from hostdev_core.runtime.deadlines import Deadlines
from hostdev_core.simulated.faults import Faults
from hostdev_core.simulated.kernel import late, machine, pciback, usb, vfio
from hostdev_core.simulated.kernel.device import fail
from hostdev_core.simulated.kernel.disk import MEMORY, Disk, last_part, names, read
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.sysfs import SimulatedModules, SimulatedSysfs, SimulatedTexts
from hostdev_core.simulated.xenstore import SimulatedXenstore, libxl_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from hostdev_core.kernel.udev import Udev
    from hostdev_core.ledger.store import Ledger

# The nodes that open once; VFIO's container and the nodes of single devices are not exclusive.
_GROUP_NODE = re.compile(r"/?dev/vfio/(?:noiommu-)?[0-9]+")


class OpenedMachine(Host):
    """A machine made by `SimulatedHost.create`; InputError when there is none in `root`.

    `user`: the number of a user who is not root and looks at it through this object.
    """

    def __init__(self, root: str, *, deadlines: Deadlines | None = None) -> None:
        super().__init__(root, deadlines=deadlines)
        machine.check_machine(root)
        self._disk = Disk(root)
        self._core = Core(self._disk)
        self._faults = Faults(self._disk)
        self.sysfs: SimulatedSysfs = SimulatedSysfs(self._core, self._faults)
        self.texts = SimulatedTexts(self._disk)
        self.user: int | None = None

    @cached_property
    def ledger(self) -> "Ledger":
        """The ledger that all processes of this machine share."""
        from hostdev_core.simulated.ledger import SimulatedLedger

        return SimulatedLedger(self, self._faults, user=self.user)

    @cached_property
    def modules(self) -> SimulatedModules:
        """The modules of this machine's kernel."""
        return SimulatedModules(self, self._core, self._faults)

    @cached_property
    def xenstore(self) -> Xenstore:
        """The xenstore of this machine; it answers in a dom0 only."""
        return SimulatedXenstore(self, self._disk)

    @cached_property
    def udev(self) -> "Udev":
        """The udev of this machine: its events, and properties from sysfs and `run/udev/data`."""
        from hostdev_core.simulated.udev import SimulatedUdev

        return SimulatedUdev(self, self._disk)

    @property
    def kernel_release(self) -> str:
        """The release of the simulated kernel."""
        return machine.release_of(self._disk)

    @property
    def boot_time(self) -> float | None:
        """The `btime` of its proc/stat; None without: this process's clock is not the machine's."""
        words = (self.glance_text("proc/stat", 1 << 16) or "").split()
        number = words[words.index("btime") + 1 :][:1] if "btime" in words else []
        return float(number[0]) if number and number[0].isdecimal() else None

    @property
    def _kernel_log(self) -> str | None:
        """The file of the kernel's messages, where a test has made one."""
        path = self.path("dev/kmsg")
        return path if os.path.isfile(path) else None

    def vfio_users(self, address: str) -> tuple[Holder, ...]:
        """None: the VFIO devices of the machine this runs on are not this machine's."""
        del address
        return ()

    def search_openers(self, nodes: "Collection[Identity]", seconds: float | None = None) -> Search:
        """Search as a Host; a process hidden from this user does not use the files of its machine."""
        return super().search_openers(nodes, seconds)._replace(hidden=None)

    def is_node(self, known: Identity, number: str | None) -> bool:
        """Tell whether it is a node; regular files stand for nodes here, with any number."""
        return known[0] == stat.S_IFREG or super().is_node(known, number)

    def network_namespaces(self) -> tuple[str, ...]:
        """None: the namespaces of the machine this runs on are not this machine's."""
        return ()

    def ledger_doubt(self) -> str | None:
        """None: its ledger lies in the machine's own directory, the same for every process."""
        return None

    def become(self, uid: int) -> None:
        """Let this object look at the machine as a user who is not root, from now on."""
        self.user = uid
        self.sysfs.may_write = False
        self.modules.may_load = False

    def check_permitted(self) -> None:
        """Raise NotPermittedError after `become` only: every user may change a simulated host."""
        if self.user is not None:
            raise not_permitted(self.user)

    def open_node(self, path: str) -> int:
        """Open a node; a VFIO group opens once, EBUSY (OSError) as long as it is open."""
        late.settle(self._disk)
        # Nodes are root's: for any other user the last bits of the mode decide.
        if self.user is not None and not os.stat(self.path(path)).st_mode & 0o006:
            fail(errno.EACCES)
        if _GROUP_NODE.fullmatch(path.removeprefix(self.root)):
            return vfio.open_group(self.path(path.removeprefix(self.root)))
        return super().open_node(path.removeprefix(self.root))

    def try_vfio(self, node: str) -> None:
        """Answer as VFIO does; nothing without the nodes. Faults take it as a write of the node to "vfio"."""
        late.settle(self._disk)
        if not all(os.path.exists(self.path(path)) for path in (CONTAINER, node)):
            return
        fault = self._faults.take({"vfio"}, node)
        if fault is not None:
            self._faults.wait(fault, "vfio", node)
            if fault.errno is not None:
                raise RefusedError(fault.errno, os.strerror(fault.errno), "VFIO_SET_IOMMU")
        vfio.try_group(self._disk, self._core.drivers, node.rpartition("/")[2])

    def late_nodes(self, path_glob: str, seconds: float, *, count: int = 1) -> None:
        """Let the next `count` nodes and interfaces of these names appear that much later.

        `path_glob` (fnmatch) is of paths below /dev ("vfio/*", "bus/usb/*"), or "net/eth0" for an
        interface. No timer makes them: they appear while `udev` waits, or when a node is opened.
        """
        late.add(self._disk, path_glob, seconds, count)

    def writes(self) -> list[tuple[str, str]]:
        """List path (below /sys) and value of every process's writes, in order, refused ones too."""
        return self._faults.writes()

    def clear_writes(self) -> None:
        """Forget the writes made so far."""
        self._faults.clear_writes()

    def snapshot(self) -> dict[str, dict[str, object]]:
        """Describe the kernel's side of "as found", for comparison; nothing that hangs delays it."""
        found: dict[str, dict[str, object]] = {}
        # From the disk, not through `sysfs`: its reads may wait for a device's lock.
        devices = f"{self._disk.sys}/bus/pci/devices"
        for name in names(devices):
            found[name] = {
                "kernel_driver": last_part(f"{devices}/{name}/driver"),
                "driver_override": (read(f"{devices}/{name}/driver_override") or "").rstrip("\n"),
                "power_control": (read(f"{devices}/{name}/power/control") or "").rstrip("\n"),
            }
        found["pciback"] = {"slots": pciback.slots(self._disk)}
        found["xenstore"] = libxl_nodes(self._disk)
        found["usb"] = usb.interface_drivers(self._disk)
        return found


def machine_of(sysfs: str | os.PathLike[str]) -> tuple[Host, str]:
    """Open the machine whose sysfs this is; return it and its origin; InputError for no sysfs."""
    path = os.path.abspath(sysfs)
    root, name = os.path.split(path)
    if name != "sys" or not os.path.isdir(f"{path}/bus"):
        raise InputError(f"{path} is not the sysfs of a machine; wanted one like /sys")
    if os.path.isdir(f"{root}/{MEMORY}"):  # a real machine has no such directory
        return OpenedMachine(root), f"captured by hostdev {__version__} from a simulated machine"
    system = os.uname()
    words = f"captured by hostdev {__version__} on {system.sysname} {system.release}"
    return Host(root), f"{words} {system.machine}"
