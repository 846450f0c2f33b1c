"""Records: a device's line in the ledger."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from hostdev_core.model.device import UsedBy

NO_STEPS = "[]"  # a backend's own steps as JSON, for a device that has none


class Phase(StrEnum):
    """Where a device is on its way: preparing -> active -> releasing -> gone, or inactive."""

    PREPARING = "preparing"
    ACTIVE = "active"
    RELEASING = "releasing"
    INACTIVE = "inactive"


class Found(NamedTuple):
    """A PCI device as it was found; `None` is the kernel's own "none" and a normal state."""

    kernel_driver: str | None = None
    driver_override: str | None = None
    power_control: str | None = None
    module: str | None = None


class Record(NamedTuple):
    """One device in the ledger.

    `backend` is the driver that made it. `op` is the operation that is at work on it, None at rest.
    `confirmed`: the device was read again after the claim, and `found` is that reading; before that
    nothing was written, and nothing needs undoing. `home` says where the device goes
    after use: back as found ("host"), or onto the inactive list. `listed`: it was on that list when
    this prepare began. `handed`: False for a sibling that was taken only to make its IOMMU group
    viable. `steps` are the backend's own steps that were done, as JSON. `stuck` is the reason when
    something is wrong; it erases neither owner nor direction.
    """

    kind: str
    address: str
    phase: Phase
    backend: str
    op: str | None = None
    owner: UsedBy | None = None
    home: str = "host"
    listed: bool = False
    handed: bool = True
    confirmed: bool = False
    stub: str | None = None
    found: Found = Found()
    steps: str = NO_STEPS
    modalias: str = ""
    revision: str | None = None
    inode: int | None = None
    group: int | None = None
    physfn: str | None = None
    controller: str | None = None
    # The identity of a device on any bus without steps. The ledgers that there are, and the JSON of a plan,
    # have it under the name of the first such bus.
    usb: str = ""
    allowed: str = ""
    since: float = 0.0
    stuck: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The key of the record in the ledger: kind and address."""
        return self.kind, self.address

    @property
    def is_lent(self) -> bool:
        """Whether a domain has it now."""
        return self.phase is Phase.ACTIVE and self.handed

    @property
    def rests_on_list(self) -> bool:
        """Whether restoring it puts the device on the inactive list, instead of as found."""
        return self.listed if self.phase is Phase.PREPARING else self.home == "inactive"

    @property
    def left_traces(self) -> bool:
        """Whether its backend has steps of its own to undo, whose effects outlive the device.

        They may take the next device at the address: until they are undone, how that one was found is
        not known.
        """
        return self.steps != NO_STEPS

    def seizes(self, kernel_driver: str | None) -> bool:
        """Whether a device that came to this one's address may be on that driver because of it.

        A backend's step for the device that is gone can take the next one there, as a slot of pciback does.
        """
        return self.left_traces and kernel_driver is not None and kernel_driver == self.stub

    def on_list(self) -> "Record":
        """Return the record as it is on the inactive list: without an owner, at rest."""
        return self._replace(
            phase=Phase.INACTIVE,
            op=None,
            owner=None,
            home="host",
            listed=False,
            handed=True,
            confirmed=True,
            stuck=None,
            allowed="",
        )

    def at_rest(self) -> "Record":
        """Return the record as before its return began: lent, or on the inactive list."""
        phase = Phase.ACTIVE if self.owner else Phase.INACTIVE
        return self._replace(phase=phase, op=None, stuck=None)

    def to_row(self) -> tuple[object, ...]:
        """The columns of `COLUMNS`."""
        plain = (*self[:_AT_OWNER], *self[_AT_OWNER + 1 : _AT_FOUND], *self[_AT_FOUND + 1 :])
        return (*plain, *(self.owner or (None, None, None, None)), *self.found)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-able data; what `hostdev show` tells too has the name that it has there."""
        values = self._asdict()
        facts = {shown: values.pop(name) for name, shown in _SHOWN.items()}
        return {
            **values,
            **facts,
            "phase": str(self.phase),
            "used_by": self.owner and self.owner._asdict(),
            "found": self.found._asdict(),
            "allowed": self.allowed.split(" ") if self.allowed else [],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """The record that `to_dict` gave."""
        values = {name: data[_SHOWN.get(name, name)] for name in cls._fields}
        owner = values["owner"]
        values |= {
            "phase": Phase(values["phase"]),
            "owner": None if owner is None else UsedBy(**owner),
            "found": Found(**values["found"]),
            "allowed": " ".join(values["allowed"]),
        }
        return cls(**values)

    @classmethod
    def from_row(cls, row: tuple[object, ...]) -> "Record":
        """The record of a row of `COLUMNS`; ValueError when it is none of ours."""
        *plain, domain, driver, uri, uuid, kernel_driver, override, power, module = row
        values: dict[str, Any] = dict(zip(_PLAIN, plain, strict=True))
        if values["phase"] not in _PHASES:
            raise ValueError(f"phase {values['phase']!r:.80}")
        for name in _FLAGS:
            if values[name] not in (0, 1):
                raise ValueError(f"{name} {values[name]!r:.80} where yes or no should be")
            values[name] = values[name] == 1
        values["phase"] = _PHASES[values["phase"]]
        owner: Any = None if domain is None else UsedBy(domain, driver, uri, uuid)  # type: ignore[arg-type]
        found = Found(kernel_driver, override, power, module)  # type: ignore[arg-type]
        return cls(owner=owner, found=found, **values)


_SHOWN = {"backend": "driver", "owner": "used_by", "group": "iommu_group"}
_OWNER = ("owner_domain", "owner_driver", "owner_uri", "owner_uuid")
_FOUND = ("found_driver", "found_override", "found_power", "found_module")
_FLAGS = ("listed", "handed", "confirmed")
_PHASES = {str(phase): phase for phase in Phase}
_AT_OWNER, _AT_FOUND = Record._fields.index("owner"), Record._fields.index("found")
_PLAIN = tuple(name for name in Record._fields if name not in {"owner", "found"})
COLUMNS = (
    *("iommu_group" if name == "group" else name for name in _PLAIN),
    *_OWNER,
    *_FOUND,
)
