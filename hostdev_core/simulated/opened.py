"""A simulated machine as a Host: its doors, without the hands that plug and break things."""

import errno
import os
import re
import stat
from functools import cached_property

from hostdev_core import __version__
from hostdev_core.errors import InputError, not_permitted
from hostdev_core.host import Deadlines, Host
from hostdev_core.kernel.processes import Holder, Identity, Search
from hostdev_core.kernel.vfio import CONTAINER, RefusedError
from hostdev_core.kernel.xenstore import Xenstore
from hostdev_core.simulated.faults import Faults
from hostdev_core.simulated.kernel import late, machine, pciback, usb, vfio
from hostdev_core.simulated.kernel.device import fail
from hostdev_core.simulated.kernel.disk import MEMORY, Disk, last_part, names, read
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.sysfs import SimulatedModules, SimulatedSysfs, SimulatedTexts
from hostdev_core.simulated.xenstore import SimulatedXenstore, below_libxl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from hostdev_core.kernel.udev import Udev
    from hostdev_core.ledger.store import Ledger

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
        """The in-use state that all processes of this machine share."""
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
        """The udev of this machine: events, what sysfs says, and what a test put into `run/udev/data`."""
        from hostdev_core.simulated.udev import SimulatedUdev

        return SimulatedUdev(self, self._disk)

    @cached_property
    def kernel_release(self) -> str:
        """The release of the simulated kernel."""
        return machine.release_of(self._disk)

    @property
    def boot_time(self) -> float | None:
        """What `btime` in its proc/stat says; None without: its clock says nothing of a directory."""
        words = (self.glance_text("proc/stat", 1 << 16) or "").split()
        number = words[words.index("btime") + 1 :][:1] if "btime" in words else []
        return float(number[0]) if number and number[0].isdecimal() else None

    @property
    def _kernel_log(self) -> str | None:
        """Where somebody has made a file of the kernel's messages."""
        path = self.path("dev/kmsg")
        return path if os.path.isfile(path) else None

    def vfio_users(self, address: str) -> tuple[Holder, ...]:
        """None: the machine this runs on has VFIO devices of its own, these are not."""
        del address
        return ()

    def search_openers(self, nodes: "Collection[Identity]", seconds: float | None = None) -> Search:
        """Who may not be looked at by this user has no business with the files of its machine."""
        return super().search_openers(nodes, seconds)._replace(hidden=None)

    def is_node(self, known: Identity, number: str | None) -> bool:
        """Files stand for nodes here, whatever their number."""
        return known[0] == stat.S_IFREG or super().is_node(known, number)

    def network_namespaces(self) -> tuple[str, ...]:
        """None: those of the machine this runs on are not its own."""
        return ()

    def ledger_doubt(self) -> str | None:
        """None: its ledger lies in the machine's own directory, for everybody."""
        return None

    def become(self, uid: int) -> None:
        """From now on a user who is not root looks at the machine through this object."""
        self.user = uid
        self.sysfs.may_write = False
        self.modules.may_load = False

    def check_permitted(self) -> None:
        """Everybody may change a simulated host, but for who plays a user that is not root."""
        if self.user is not None:
            raise not_permitted(self.user)

    def open_node(self, path: str) -> int:
        """Open a node; a VFIO group opens once, EBUSY (OSError) as long as it is open."""
        late.settle(self._disk)
        if self.user is not None and not os.stat(self.path(path)).st_mode & 0o006:
            fail(errno.EACCES)
        if _GROUP_NODE.fullmatch(path.removeprefix(self.root)):
            return vfio.open_group(self.path(path.removeprefix(self.root)))
        return super().open_node(path.removeprefix(self.root))

    def try_vfio(self, node: str) -> None:
        """As VFIO answers; for faults a write of the node's path to "vfio". Nothing without the nodes."""
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
        interface. Nothing tells of them before: they come while `udev` waits, or a node is opened.
        """
        late.add(self._disk, path_glob, seconds, count)

    def writes(self) -> list[tuple[str, str]]:
        """Path (below /sys) and value of every write by anybody, in order, refused ones too."""
        return self._faults.writes()

    def clear_writes(self) -> None:
        """Forget the writes made so far."""
        self._faults.clear_writes()

    def snapshot(self) -> dict[str, dict[str, object]]:
        """The kernel's side of "as found", for comparison; nothing that hangs delays it."""
        found: dict[str, dict[str, object]] = {}
        devices = f"{self._disk.sys}/bus/pci/devices"
        for name in names(devices):
            found[name] = {
                "kernel_driver": last_part(f"{devices}/{name}/driver"),
                "driver_override": (read(f"{devices}/{name}/driver_override") or "").rstrip("\n"),
                "power_control": (read(f"{devices}/{name}/power/control") or "").rstrip("\n"),
            }
        found["pciback"] = {"slots": pciback.slots(self._disk)}
        found["xenstore"] = below_libxl(self._disk)
        found["usb"] = usb.interface_drivers(self._disk)
        return found


def machine_of(sysfs: str | os.PathLike[str]) -> tuple[Host, str]:
    """The machine whose sysfs this is, and a word on where that is from; InputError for none."""
    path = os.path.abspath(sysfs)
    root, name = os.path.split(path)
    if name != "sys" or not os.path.isdir(f"{path}/bus"):
        raise InputError(f"{path} is not the sysfs of a machine; wanted one like /sys")
    if os.path.isdir(f"{root}/{MEMORY}"):
        return OpenedMachine(root), f"captured by hostdev {__version__} from a simulated machine"
    system = os.uname()
    words = f"captured by hostdev {__version__} on {system.sysname} {system.release}"
    return Host(root), f"{words} {system.machine}"
