"""Every error of hostdev, one tree.

    HostdevError
      InputError(ValueError)      InvalidURIError  InvalidAddressError  DuplicateDeviceError
      NoDriverError  OpenError  ConnectionClosedError  ReadOnlyError
      NotPermittedError(PermissionError)
      PluginError                 DriverConflictError
      VetoError
      DeviceError                 DeviceNotFoundError  DeviceInUseError  UnsupportedError
                                  NotAssignableError   -> GroupNotViableError
      KernelError                 KernelTimeoutError   -> KernelCrashError
      StateError
      ReattachError(ExceptionGroup)

A message names the thing, what is, what was wanted and what to do next. The facts are attributes,
given as keywords; every error survives pickle with its attributes and notes.
"""

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostdev_core.model.device import UsedBy


# A note on what interrupts a call when all is done.
WAS_DONE = "what was asked for had been done before; `hostdev status` has what is lent"
# How a note begins on what interrupts a call while it undoes.
LEFT_BEHIND = "the undo is left to the worker, pid"


def _restore(
    kind: "type[BaseException]", args: "tuple[object, ...]", facts: "dict[str, object]"
) -> BaseException:
    """Make an error again from its pickled parts, without calling its `__init__`."""
    error = kind.__new__(kind, *args)
    error.args = args  # an OSError keeps none without its `__init__`
    error.__dict__.update(facts)
    return error


class Origin(NamedTuple):
    """Where a plugin comes from: distribution ("audit 1.0"), entry point's value, file of its module."""

    distribution: str | None
    value: str
    file: str | None

    def __str__(self) -> str:
        return ", ".join(
            part for part in (self.distribution, f"entry point {self.value}", self.file) if part
        )


class HostdevError(Exception):
    """The root: each error that hostdev raises on purpose is one of these."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __reduce__(self) -> "tuple[object, ...]":
        return _restore, (type(self), self.args, self.__dict__)


class InputError(HostdevError, ValueError):
    """An argument is not of the form that was asked for."""


class InvalidURIError(InputError):
    """A connection URI that does not name a driver and a place."""


class InvalidAddressError(InputError):
    """A text that names no device in any of the known forms."""


class DuplicateDeviceError(InputError):
    """The same device twice in one request."""


class NoDriverError(HostdevError):
    """No row of the driver table serves this URI."""


class OpenError(HostdevError):
    """The driver recognised the URI as its own and could not open it."""

    def __init__(self, message: str, *, driver: str, uri: str) -> None:
        super().__init__(message)
        self.driver = driver
        self.uri = uri


class ConnectionClosedError(HostdevError):
    """The connection was closed before this call."""


class ReadOnlyError(HostdevError):
    """A change was asked of a connection opened with `read_only=True`."""


class NotPermittedError(HostdevError, PermissionError):
    """The process may not do this; nothing was changed."""


class PluginError(HostdevError):
    """A plugin raised, cannot be loaded, or has a hook of the wrong form.

    `origin` says where an installed one that cannot be loaded comes from.
    """

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        hook: "str | None" = None,
        origin: Origin | None = None,
    ) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.hook = hook
        self.origin = origin


class DriverConflictError(PluginError):
    """Two plugins claim one URI scheme or one driver name."""


class VetoError(HostdevError):
    """Rules refuse that `allow` can pass; `refusals` holds those of hostdev and of all plugins."""

    def __init__(self, message: str, *, refusals: "Sequence[object]" = ()) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)


class DeviceError(HostdevError):
    """Something about one device; `device` is its address.

    `rule` names the rule of docs/rules.md that refuses, where one does; `evidence` are the facts
    behind it, one a line. The text ends with the rule's name, as a plugin's Refusal does.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str,
        rule: "str | None" = None,
        evidence: "Sequence[str]" = (),
    ) -> None:
        super().__init__(message)
        self.device = device
        self.rule = rule
        self.evidence = tuple(evidence)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} [{self.rule}]" if self.rule else text


class DeviceNotFoundError(DeviceError):
    """There is no such device."""


class DeviceInUseError(DeviceError):
    """A domain has it (`used_by`), or processes hold it (`holders`)."""

    def __init__(
        self,
        message: str,
        *,
        device: str,
        used_by: "UsedBy | None" = None,
        holders: "Sequence[str]" = (),
        rule: "str | None" = None,
        evidence: "Sequence[str]" = (),
    ) -> None:
        super().__init__(message, device=device, rule=rule, evidence=evidence)
        self.used_by = used_by
        self.holders = tuple(holders)


class NotAssignableError(DeviceError):
    """The device cannot be lent as it stands; `errno` is the kernel's, where that said so."""

    def __init__(
        self,
        message: str,
        *,
        device: str,
        rule: "str | None" = None,
        evidence: "Sequence[str]" = (),
        errno: "int | None" = None,
    ) -> None:
        super().__init__(message, device=device, rule=rule, evidence=evidence)
        self.errno = errno


class GroupNotViableError(NotAssignableError):
    """Other members of the IOMMU group are on host drivers; `culprits` are their addresses."""

    def __init__(
        self,
        message: str,
        *,
        device: str,
        culprits: "Sequence[str]",
        rule: "str | None" = "group-not-viable",
        evidence: "Sequence[str]" = (),
    ) -> None:
        super().__init__(message, device=device, rule=rule, evidence=evidence)
        self.culprits = tuple(culprits)


class UnsupportedError(DeviceError):
    """The driver in the slot does not offer this call."""


class KernelError(HostdevError):
    """The kernel refused `value` for `path`, with this `errno`; `device` where a ReattachError has it."""

    device: "str | None" = None

    def __init__(self, message: str, *, path: str, value: str, errno: "int | None" = None) -> None:
        super().__init__(message)
        self.path = path
        self.value = value
        self.errno = errno


class KernelTimeoutError(KernelError):
    """The kernel has not returned from a write; `holders` says who was found to use the device."""

    def __init__(
        self, message: str, *, path: str, value: str, holders: "Sequence[str]" = ()
    ) -> None:
        super().__init__(message, path=path, value=value)
        self.holders = tuple(holders)


class KernelCrashError(KernelTimeoutError):
    """The kernel crashed in a write (an oops) and keeps the device's lock: only a reboot frees it."""


class StateError(HostdevError):
    """The ledger cannot be used, or the world kept changing under a call.

    `device` is set where a ReattachError has it.
    """

    device: "str | None" = None


class ReattachError(ExceptionGroup[Exception], HostdevError):
    """Some devices could not be given back; the others were, `returned` has their addresses.

    `exceptions` has one error for each device that was not given back, whose `device` is its address,
    and those of plugins, which stop no device from being given back.
    """

    def __init__(self, message: str, exceptions: "Sequence[Exception]", /) -> None:
        super().__init__(message, exceptions)
        self.returned: tuple[str, ...] = ()

    @property
    def by_device(self) -> "dict[str, Exception]":
        """The error of each device that was not given back, by its address."""
        pairs = ((getattr(error, "device", None), error) for error in self.exceptions)
        return {device: error for device, error in pairs if isinstance(device, str)}

    def derive(self, excs: "Sequence[Exception]", /) -> "ReattachError":  # type: ignore[override]
        part = ReattachError(self.message, excs)
        part.returned = self.returned
        return part


def not_permitted(uid: int) -> NotPermittedError:
    """Build the error for a change by a user other than root."""
    return NotPermittedError(f"user {uid} may not bind drivers on this host; run as root")
