"""A Host: all the doors to one machine, made once and passed down.

Everything that is read of the machine or written to it goes through one of these doors, and every
path hangs on `Host.root`; `hostdev_core.simulated.SimulatedHost` swaps the doors, nothing above.
"""

import os
import stat
import time
from functools import cached_property

from hostdev_core.errors import InputError, KernelError, StateError, not_permitted
from hostdev_core.kernel.files import Texts
from hostdev_core.kernel.processes import (
    SEARCH_SECONDS,
    Holder,
    Identity,
    Search,
    find_identity,
    find_namespaces,
    find_openers,
    find_vfio_users,
)
from hostdev_core.kernel.sysfs import Sysfs
from hostdev_core.runtime.deadlines import Deadlines, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hostdev_core.bus.buses import Buses
    from hostdev_core.bus.usb_texts import USBTexts
    from hostdev_core.kernel.log import KernelLog
    from hostdev_core.kernel.modules import Modules
    from hostdev_core.kernel.udev import Udev
    from hostdev_core.kernel.xenstore import Xenstore
    from hostdev_core.ledger.store import Ledger

STATE_DIR = "run/hostdev"
STATE_DIR_VARIABLE = "HOSTDEV_STATE_DIR"
LARGEST_TEXT = 16 << 20  # modules.alias has one or two


class Host:
    """The machine whose file system hangs on `root`.

    `state_dir` is where the ledger lives; the default is `/run/hostdev` of this root, one for all
    processes and hypervisors. Another one is for tests, and for a container that has the host's at
    another place; for this machine the environment's HOSTDEV_STATE_DIR names it, too.
    """

    def __init__(
        self, root: str = "/", *, state_dir: str | None = None, deadlines: Deadlines | None = None
    ) -> None:
        self.root = os.path.abspath(root)
        self._prefix = os.path.join(self.root, "")
        named = state_dir or (os.environ.get(STATE_DIR_VARIABLE) if self.root == "/" else None)
        self.state_dir = os.path.abspath(named) if named else self.path(STATE_DIR)
        self._is_named = bool(named)
        self._is_ours = False
        self.deadlines = checked(deadlines)
        self.sysfs = Sysfs(self.path("sys"))
        self.texts = Texts()

    def watch(self, watcher: "Callable[[str], None] | None") -> None:
        """Call `watcher` before and after each change that this host's doors make.

        With "before write PATH" (below /sys), "before load MODULE", "before xenstore PATH", "before
        transaction" (of the ledger), the same with "after", and "in transaction". For harnesses that
        enumerate the moments at which a process may die or a change may fail: what it raises is
        raised there, OSError before a change as the kernel's answer. It is called in the thread
        that makes the change; a forked worker has it too.
        """
        for door in (self.sysfs, self.ledger, self.modules, self.xenstore):
            door.watcher = watcher

    def watch_reads(self, watcher: "Callable[[str], None] | None") -> None:
        """Call `watcher` before each read of this machine's sysfs and of its text files, and before a
        node is opened.

        With "read PATH", "list PATH", "link PATH", "stat PATH" or "open PATH". What it raises is
        raised there: an OSError as the kernel's answer. For harnesses that enumerate the looks that
        may fail; it is called in the thread that reads, and a forked worker has it too.
        """
        self.sysfs.reader = watcher

    def path(self, path: str) -> str:
        """A path of this machine ("dev/vfio/8", or the same with a leading slash)."""
        return f"{self._prefix}{path.lstrip('/')}"

    @cached_property
    def ledger(self) -> "Ledger":
        """The in-use state that all processes of this machine share."""
        from hostdev_core.ledger.boot import Boot
        from hostdev_core.ledger.store import Ledger

        boot = Boot(self.boot_id, self.boot_time, self.buses.is_bound)
        limit, names = self.deadlines.ledger, self.buses.is_name
        return Ledger(
            self.state_dir,
            deadline=limit,
            boot=boot,
            check=self._has_own_ledger,
            is_name=names,
        )

    @cached_property
    def buses(self) -> "Buses":
        """The buses whose devices can be lent; a host with one more adds it here."""
        from hostdev_core.bus.buses import Buses

        return Buses(self.sysfs)

    @cached_property
    def usb_texts(self) -> "USBTexts":
        """The texts of USB devices; the wait for a device that hangs is limited."""
        return self.buses.usb.texts

    @cached_property
    def modules(self) -> "Modules":
        """The kernel's modules: the loaded ones, those that an alias names, and loading one."""
        from hostdev_core.kernel.modules import Modules

        return Modules(self)

    @cached_property
    def udev(self) -> "Udev":
        """udev: its facts about this machine's devices, its events, and waiting for nodes."""
        from hostdev_core.kernel.udev import Udev

        return Udev(self)

    @cached_property
    def xenstore(self) -> "Xenstore":
        """Xen's store, as this dom0 sees it."""
        from hostdev_core.kernel.xenstore import Xenstore

        return Xenstore(self)

    @property
    def kernel_release(self) -> str:
        """The kernel's release, as `uname -r`; it names the folder of the modules."""
        return os.uname().release

    @property
    def boot_id(self) -> str | None:
        """The kernel's id of this boot; None where it has none (random(4))."""
        return (self.glance_text("proc/sys/kernel/random/boot_id") or "").strip() or None

    @property
    def boot_time(self) -> float | None:
        """When the kernel booted, by the time of day; None where files may be older than their host."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def is_dom0(self) -> bool:
        """Whether this is Xen's control domain (`control_d` in /proc/xen/capabilities)."""
        return "control_d" in (self.read_text("proc/xen/capabilities") or "")

    @property
    def has_iommu(self) -> bool:
        """Whether the kernel has made IOMMU groups."""
        return bool(self.sysfs.names("kernel/iommu_groups"))

    def read_text(self, path: str, size: int = LARGEST_TEXT) -> str | None:
        """A text file outside /sys, at most `size` bytes of it; None when it is not there.

        Raises KernelError when it is there, or may be, and cannot be read.
        """
        where = self.path(path)
        try:
            self.tell_read(f"read {where}")
            data = self.texts.fetch(where, size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            why = error.strerror or str(error)
            raise KernelError(
                f"cannot read {where}: {why}", path=where, value="", errno=error.errno
            ) from error
        return data.decode("utf-8", "replace")

    def glance_text(self, path: str, size: int = LARGEST_TEXT) -> str | None:
        """The same where it can be had; None for every reason why not: for messages."""
        try:
            return self.read_text(path, size)
        except (KernelError, InputError):  # this one for a pipe in a simulated host's place
            return None

    def tell_read(self, what: str) -> None:
        """Tell `watch_reads`'s watcher of a read that is about to be made."""
        if self.sysfs.reader is not None:
            self.sysfs.reader(what)

    def listen_to_kernel(self) -> "KernelLog":
        """Follow the kernel's messages from now on, independent of its clock; a context manager."""
        from hostdev_core.kernel.log import KernelLog

        return KernelLog(self._kernel_log)

    @property
    def _kernel_log(self) -> str | None:
        return self.path("dev/kmsg")

    def open_node(self, path: str) -> int:
        """Open a device node for the holder guard; the caller closes it.

        Raises OSError: EBUSY says that somebody holds it (a VFIO group opens once), ENOENT that
        there is no such node.
        """
        self.tell_read(f"open {self.path(path)}")
        return os.open(self.path(path), os.O_RDWR | os.O_CLOEXEC)

    def try_vfio(self, node: str) -> None:
        """Open and set up a VFIO group as a hypervisor does first, and close it at once.

        Raises OSError when VFIO refuses: the kernel's errno, and in `filename` the call that failed.
        """
        from hostdev_core.kernel.vfio import CONTAINER, attempt
        from hostdev_core.runtime.forks import private

        attempt(self.path(CONTAINER), self.path(node), private)

    def holders(self, paths: "Iterable[str]") -> tuple[Holder, ...]:
        """The processes that have one of these nodes open, as far as /proc may be read."""
        return self.openers(
            {found for path in paths if (found := find_identity(self.path(path))) is not None}
        )

    def openers(self, nodes: "Collection[Identity]") -> tuple[Holder, ...]:
        """The processes that have one of these nodes open, wherever it stands or stood.

        As far as a short search finds them: for messages.
        """
        return self.search_openers(nodes, SEARCH_SECONDS).holders

    def search_openers(self, nodes: "Collection[Identity]", seconds: float | None = None) -> Search:
        """Search for the processes that have one of these nodes open, and say why some were not seen.

        It takes `seconds` at most; by default the deadline of an attribute.
        """
        limit = self.deadlines.attribute if seconds is None else seconds
        return find_openers(nodes, limit)

    def is_node(self, known: "Identity", number: str | None) -> bool:
        """Whether the file at a node's place is the node of this number ("511:0", as in sysfs)."""
        kind, device, _ = known
        return kind == stat.S_IFCHR and number == f"{os.major(device)}:{os.minor(device)}"

    def has_node(self, path: str, number: str | None = None) -> bool:
        """Whether something is at a path, and is the node of this number, where one is given."""
        known = find_identity(path)
        return known is not None and (number is None or self.is_node(known, number))

    def network_namespaces(self) -> tuple[str, ...]:
        """The network namespaces beside this process's, in words, as far as a process is in them."""
        return find_namespaces()

    def vfio_users(self, address: str) -> tuple[Holder, ...]:
        """The processes that may have a VFIO device open, and no node that says so."""
        return find_vfio_users(address)

    def ledger_doubt(self) -> str | None:
        """Why the ledger may be another one than the host's, in words; None when it is that one.

        A state directory that was named is taken at its word.
        """
        if self._is_named or self.root != "/":
            return None
        from hostdev_core.ledger.place import find_doubt

        return find_doubt(self.state_dir)

    def check_ledger(self) -> None:
        """Raise StateError unless the ledger is the one of the host, which all its processes share."""
        self._has_own_ledger()

    def _has_own_ledger(self) -> bool:
        """As `check_ledger`; True, as it stays so."""
        if self._is_ours:
            return True
        if doubt := self.ledger_doubt():
            raise StateError(
                f"what is lent on this host cannot be known: {doubt}. Mount the host's /run/hostdev, and"
                f" name it: --state-dir, {STATE_DIR_VARIABLE}, or Host(state_dir=...)"
            )
        self._is_ours = True
        return True

    def check_permitted(self) -> None:
        """Raise NotPermittedError unless this process may change the machine."""
        if os.geteuid() != 0:
            raise not_permitted(os.geteuid())
