"""The interface of a bus: everything that differs between kinds of devices.

A Host has its buses (`Host.buses`). No other room asks for a kind: it asks the bus of a device, a hostdev
or a record.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from hostdev_core.errors import StateError
from hostdev_core.kernel.sysfs import Sysfs
from hostdev_core.model.near import Near

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hostdev_core.model.device import Device
    from hostdev_core.model.record import Record

SAME = frozenset({"there", "replugged"})  # answers of `identify` for the device that was recorded
PATIENCE = 2.0  # seconds for the texts of all devices together, where they are shown or compared


class Scope(NamedTuple):
    """What a call has to look at: the names of devices, or these themselves; and what is near to them."""

    near: Near
    names: "Sequence[str]" = ()
    devices: "Mapping[str, Device] | None" = None


class Bus(ABC):
    """One kind of device that can be lent.

    `kind` names it in the ledger, in JSON and in hostdevs; its devices stand in `folder` of sysfs by their
    names. With `has_steps` lending writes to the kernel, and giving back undoes that; else the claim alone
    lends a device. What is written here holds for a device that sysfs shows as a directory of its own,
    which another device never gets; a bus overrides what is different for its kind.
    """

    kind: ClassVar[str]
    folder: ClassVar[str]
    has_steps: ClassVar[bool] = False

    def __init__(self, sysfs: Sysfs) -> None:
        self.sysfs = sysfs

    # Which devices are there.

    @abstractmethod
    def devices(self, *, tolerant: bool = False) -> "Mapping[str, Device]":
        """The devices that are there, by name, in order; nothing that takes a device's lock is read.

        KernelError where one cannot be seen; with `tolerant` it is left out, or has `unread`.
        """

    def scope(self, hostdevs: "Sequence[Any]") -> Scope:
        """Find what a call for these hostdevs has to look at, by facts that stay as long as a device does.

        All devices, for a bus whose hostdevs do not name one as the ledger does.
        """
        del hostdevs
        devices = self.devices()
        places: list[dict[str, Any]] = [self.place(device) for device in devices.values()]
        related = {p[name] for p in places for name in ("physfn", "controller") if p.get(name)}
        groups = {place["group"] for place in places if place.get("group") is not None}
        near = Near(frozenset(devices), frozenset(related), frozenset(groups))
        return Scope(near, devices=devices)

    def see(self, scope: Scope) -> "Mapping[str, Device]":
        """Look at the devices of a scope, by name, in the order of a listing."""
        return self.devices() if scope.devices is None else scope.devices

    @abstractmethod
    def read(self, name: str) -> "Device | None":
        """Read the device of a name; None when there is none, KernelError where that cannot be seen."""

    @abstractmethod
    def absent(self, name: str) -> "Device":
        """A device that is not there, by its name alone."""

    @abstractmethod
    def parse(self, text: str) -> str | None:
        """The name that the ledger has for the one device that a text names; None for any other text.

        InvalidAddressError for a text that may mean several devices of this kind.
        """

    def is_name(self, name: str) -> bool:
        """Whether the ledger may have a device of this name: in its one form."""
        return self.parse(name) == name

    def told_of(self, name: str) -> str | None:
        """The device that an event of the kernel for this name is about; None when it is about none."""
        return name if self.is_name(name) else None

    def find(self, hostdev: Any, devices: "Mapping[str, Device]") -> "Device | None":
        """Find the device that a hostdev means among these."""
        return devices.get(str(hostdev))

    def describe(self, devices: "Mapping[str, Any]", seconds: float) -> "Mapping[str, Device]":
        """Add texts that are only shown; a device that does not answer is waited for no longer."""
        del seconds
        return devices

    def path(self, name: str) -> str:
        """Where a device is in sysfs."""
        return f"{self.folder}/{name}"

    def check_seen(self) -> None:
        """Raise KernelError where devices of this bus could be there and not be seen."""
        self.sysfs.check_seen(self.folder)

    def kernel_driver(self, name: str) -> str | None:
        """The kernel driver that a device is bound to; None without one."""
        return self.sysfs.link(f"{self.folder}/{name}/driver")

    def driver_override(self, name: str) -> str | None:
        """The text of driver_override; None when unset, which the kernel shows as "(null)"."""
        text = self.sysfs.read(f"{self.folder}/{name}/driver_override")
        return None if text in {None, "", "(null)"} else text

    @property
    def root(self) -> str:
        """Where the bus is in sysfs, with `drivers` and `drivers_probe`."""
        return self.folder.rpartition("/")[0]

    # Whether a device is the one that a record is about.

    def locate(self, record: "Record") -> str:
        """Tell by its directory in sysfs alone whether the recorded device is "there", "gone" or "replaced".

        KernelError where that cannot be seen: a device that is not seen is not gone.
        """
        inode = self.sysfs.inode(f"{self.folder}/{record.address}")
        if inode is None:
            self.check_seen()
            return "gone"
        return "there" if record.inode in {None, inode} else "replaced"

    def present(self) -> "Mapping[str, Device]":
        """The devices by name, where `identify` needs the one that is at a record's name now."""
        return {}

    def identify(self, record: "Record", now: "Device | None", seconds: float = PATIENCE) -> str:
        """Compare `now`, the device at the record's name, with all that was recorded of the device.

        Answers as `locate`, and "replugged" for the recorded device that came back in another way than it
        was lent: it is the record's, and nobody else's, until that ends. `now` is asked which one it is
        for so many seconds; one that is silent counts as the same.
        """
        del now, seconds
        return self.locate(record)

    def identify_present(self, record: "Record") -> str:
        """Identify what is at the record's name now, read here where its directory alone does not tell."""
        return self.locate(record)

    def owns_place(self, record: "Record") -> bool:
        """Whether the record's group, PF and controller are still its device's, and not free for the next.

        The kernel gives the numbers of a device that is gone to the next one.
        """
        return self.locate(record) == "there"

    def check_answers(self, record: "Record", now: "Device", seconds: float) -> None:
        """Raise KernelTimeoutError for a device that must be asked which one it is and is silent."""
        del record, now, seconds

    def check_there(self, record: "Record", seconds: float) -> None:
        """Raise StateError when the device that was claimed is gone, or replaced; it is asked so long."""
        del seconds
        where = self.locate(record)
        if where == "gone":
            raise StateError(
                f"{record.address} was unplugged meanwhile; try again when it is plugged in"
            )
        if where == "replaced":
            raise StateError(
                f"{record.address} was replaced by another card meanwhile, which was left alone; try again"
            )

    def drift(self, record: "Record", now: "Device | None") -> "list[tuple[str, str]]":
        """How the device of a record at rest differs from it: "gone", "replaced" or "rebound", and more."""
        where = self.identify(record, now)
        if where != "there":
            return [(where, self._of_another(record, where))]
        driver = self.kernel_driver(record.address) if self.has_steps else record.stub
        if driver == record.stub:
            return []
        verb = "lent" if record.owner else "detached"
        return [("rebound", f"on {driver or 'no driver'}, {verb} on {record.stub}")]

    def _of_another(self, record: "Record", where: str) -> str:
        from hostdev_core.model.words import ends  # here: a listing needs none of it

        way = ends(record)
        if where == "gone":
            return f"no device is at this address; {way}"
        driver = self.kernel_driver(record.address)
        if record.seizes(driver):
            return (
                f"another device is at this address, and what was left of the one that was there has taken"
                f" it to {driver}; {way} and lets it go to its own driver"
            )
        return f"another device is at this address; {way}"

    def is_bound(self, record: "Record") -> bool:
        """Whether a resting record's device is where the record put it, or cannot be seen."""
        del record
        return False

    # What is recorded of a device, and found again.

    def place(self, device: Any) -> dict[str, Any]:
        """The columns of a record by which devices exclude each other: `group`, `physfn`, `controller`."""
        del device
        return {}

    def recorded(self, device: Any) -> dict[str, Any]:
        """The columns of a record that tell a device that is lent by its claim alone from others."""
        return {**self.place(device), "inode": device.inode, "usb": device.identity}

    def recall(self, device: Any, record: "Record") -> Any:
        """Add to a device the facts that only its record has."""
        del record
        return device

    def find_records(
        self, hostdev: Any, records: "Iterable[Record]", look: "Callable[[], Sequence[Device]]"
    ) -> "list[Record]":
        """Find the records that a hostdev may mean; `look` lists the devices that are there now."""
        del look
        return [record for record in records if record.key == (self.kind, str(hostdev))]

    def told(self, record: "Record") -> str:
        """The device of a record in words, among others that match."""
        return record.address

    # What a guest opens.

    def node(self, device: Any) -> str | None:
        """The node of a device below the root, which its guest opens; None where there is none."""
        del device
        return None

    def claims(self, device: Any) -> "list[str]":
        """The claims that processes have on a device by the kernel's own word, in words."""
        del device
        return []

    def lent(self, device: Any, hostdev: Any) -> Any:
        """The device as it is now that it is lent to the hostdev's domain."""
        del hostdev
        return device
