"""Asking a backend: what its methods answer or raise is checked where it comes in.

An answer of another form than the interface wants, or an exception that hostdev does not know, is a
PluginError that names the driver and the method, before anything is obeyed or recorded.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast

from hostdev_core.errors import HostdevError, PluginError
from hostdev_core.model.assignment import Assignment
from hostdev_core.model.context import NO_CONTEXT, Context, takes_context
from hostdev_core.model.domain import Domain
from hostdev_core.model.steps import BackendStep

if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.model.device import PCIDevice, USBDevice


T = TypeVar("T")


class Named(Protocol):
    """Any driver: an error names it."""

    name: ClassVar[str]


class Backend(Named, Protocol):
    """What is asked of a backend; LocalHostdevDriver has it, with the contract of each method."""

    stubs: ClassVar[tuple[str, ...]]

    def choose_stub(self, host: "Host", device: "PCIDevice") -> str: ...

    def accepts_stub(self, kernel_driver: str) -> bool: ...

    def is_guest_stub(self, kernel_driver: str) -> bool: ...

    def check_device(self, host: "Host", device: "PCIDevice") -> None: ...

    def holders(self, host: "Host", device: "PCIDevice") -> Sequence[str]: ...

    def extra_steps(self, host: "Host", device: "PCIDevice") -> Iterable[BackendStep]: ...

    def run_step(self, host: "Host", step: BackendStep) -> None: ...

    def undo_step(self, host: "Host", step: BackendStep) -> None: ...

    def forget_step(self, host: "Host", step: BackendStep) -> None: ...

    def leftover_steps(self, host: "Host", device: "PCIDevice") -> Iterable[BackendStep]: ...

    def found_on(self, host: "Host", device: "PCIDevice") -> str | None: ...

    def node(self, host: "Host", device: "PCIDevice | USBDevice") -> str | None: ...

    def arguments(self, device: "PCIDevice | USBDevice", node: str | None) -> Sequence[str]: ...


def choose_stub(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> str:
    """The backend's stub for a device: one word."""
    answer = _ask(driver, "choose_stub", host, device, context=context)
    if not _is_driver(answer):
        raise _wrong(driver, "choose_stub", answer, "the name of a kernel driver, like 'vfio-pci'")
    return cast("str", answer)


def accepts_stub(driver: Backend, kernel_driver: str | None) -> bool:
    """Whether a device on this kernel driver, if on any, can be handed to the backend's guests."""
    return kernel_driver is not None and _says(driver, "accepts_stub", kernel_driver)


def is_guest_stub(driver: Backend, kernel_driver: str | None) -> bool:
    """Whether the backend's guests get a device from this stub; one that is not is for detach alone."""
    return kernel_driver is not None and _says(driver, "is_guest_stub", kernel_driver)


def check_device(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> None:
    """Raise what the backend has against a device."""
    answer = _ask(driver, "check_device", host, device, context=context)
    if answer is not None:
        raise _wrong(driver, "check_device", answer, "None, or NotAssignableError raised")


def holders(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> tuple[str, ...]:
    """Who has the device by the backend's knowledge; one text is one holder."""
    answer = _ask(driver, "holders", host, device, context=context)
    words = (answer,) if isinstance(answer, str) else answer
    if words is not None and not are_texts(words):
        raise _wrong(driver, "holders", answer, "who has the device, in words, like ['vm1']")
    return tuple(cast("Sequence[str]", words or ()))


def extra_steps(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> tuple[BackendStep, ...]:
    """The backend's own steps for a device: BackendSteps made of texts."""
    return _steps(driver, "extra_steps", host, device, context)


def leftover_steps(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> tuple[BackendStep, ...]:
    """What is left of the backend's own steps for a device that no record knows."""
    return _steps(driver, "leftover_steps", host, device, context)


def _steps(
    driver: Backend, method: str, host: "Host", device: "PCIDevice", context: Context
) -> tuple[BackendStep, ...]:
    answer = _ask(driver, method, host, device, context=context)
    if isinstance(answer, BackendStep) or not isinstance(answer, Iterable):
        raise _wrong(driver, method, answer, "a sequence of BackendStep")
    every = cast("Iterable[object]", answer)
    steps = ask(driver, method, lambda: [*every])  # or a generator
    for step in steps:
        if not isinstance(step, BackendStep) or not _is_of_texts(step):
            wanted = "BackendStep(name, device, arguments), all of them texts"
            raise _wrong(driver, method, step, wanted)
    return tuple(cast("list[BackendStep]", steps))


def found_on(
    driver: Backend, host: "Host", device: "PCIDevice", context: Context = NO_CONTEXT
) -> str | None:
    """The kernel driver that the backend knows a device to have been found on."""
    answer = _ask(driver, "found_on", host, device, context=context)
    if answer is not None and not _is_driver(answer):
        raise _wrong(driver, "found_on", answer, "the name of a kernel driver, or None")
    return cast("str | None", answer)


def _is_driver(answer: object) -> bool:
    return isinstance(answer, str) and answer != "" and "/" not in answer and answer.isprintable()


def run_step(
    driver: Backend, host: "Host", step: BackendStep, context: Context = NO_CONTEXT
) -> None:
    """Let the backend do one of its steps."""
    _do(driver, "run_step", host, step, context)


def undo_step(
    driver: Backend, host: "Host", step: BackendStep, context: Context = NO_CONTEXT
) -> None:
    """Let the backend undo one of its steps."""
    _do(driver, "undo_step", host, step, context)


def forget_step(
    driver: Backend, host: "Host", step: BackendStep, context: Context = NO_CONTEXT
) -> None:
    """Let the backend undo one of its steps whose device is gone, or replaced by another one."""
    _do(driver, "forget_step", host, step, context)


def _do(driver: Backend, method: str, host: "Host", step: BackendStep, context: Context) -> None:
    """A step that answers False has failed, as in many a program; nobody may take it for done."""
    if _ask(driver, method, host, step, context=context) is False:
        raise _wrong(driver, method, False, f"None, or an exception raised: is {step} done?")


def node(
    driver: Backend, host: "Host", device: "PCIDevice | USBDevice", context: Context = NO_CONTEXT
) -> str | None:
    """The node that the hypervisor opens for a device."""
    answer = _ask(driver, "node", host, device, context=context)
    if answer is not None and not isinstance(answer, str):
        raise _wrong(driver, "node", answer, "the path of a device node, or None")
    return answer


def arguments(
    driver: Backend,
    device: "PCIDevice | USBDevice",
    path: str | None,
    context: Context = NO_CONTEXT,
) -> tuple[str, ...]:
    """Words for the hypervisor, in a sequence: one text is none."""
    answer = _ask(driver, "arguments", device, path, context=context)
    if not are_texts(answer):
        raise _wrong(driver, "arguments", answer, "words in a tuple, like ('--device', 'x')")
    return tuple(cast("Sequence[str]", answer))


def domain_arguments(
    driver: Named, assignments: Sequence[Assignment], context: Context = NO_CONTEXT
) -> tuple[str, ...]:
    """Words for the hypervisor of a whole domain, in a sequence."""
    answer = _ask(driver, "domain_arguments", assignments, context=context)
    if not are_texts(answer):
        wanted = "words in a tuple, like ('--device', 'x', 'y')"
        raise _wrong(driver, "domain_arguments", answer, wanted)
    return tuple(cast("Sequence[str]", answer))


def check_lent(driver: Named, method: str, answer: object, domain: Domain) -> None:
    """Raise unless it is what a driver lent to a domain: Assignments, of a local one for each hostdev."""
    number = len(domain.hostdevs)
    lent = cast("Sequence[Assignment]", answer)
    is_counted = method == "prepare_hostdevs" and hasattr(driver, "stubs")
    if not are_all(answer, _is_assignment) or (is_counted and len(lent) != number):
        wanted = f"an Assignment for each of {number} hostdevs; what it lent is taken back"
        raise _wrong(driver, method, answer, wanted)
    for each in lent:
        owner = each.device.used_by if each.device is not None else None
        if owner is not None and owner.domain != domain.name:
            wanted = f"what it lent to {domain.name}; it is taken back"
            raise _wrong(driver, method, f"a device of {owner}", wanted)


def check_seen(driver: Named, method: str, answer: object) -> None:
    """Raise unless it is what a driver has seen: a Plan, or devices."""
    if method == "plan" and not hasattr(answer, "to_dict"):
        raise _wrong(driver, method, answer, "a Plan")
    if method != "plan" and not are_all(answer, _is_device):
        raise _wrong(driver, method, answer, "devices, in a tuple")


def check_returned(driver: Named, method: str, answer: object) -> None:
    """Raise unless it is what a driver gave back: addresses."""
    if not are_texts(answer):
        raise _wrong(driver, method, answer, "the addresses that were given back, in a tuple")


def _says(driver: Backend, method: str, kernel_driver: str) -> bool:
    """Yes or no; None is a `return` that was forgotten."""
    answer = _ask(driver, method, kernel_driver)
    if answer is None:
        raise _wrong(driver, method, answer, "True or False")
    return bool(answer)


def _ask(driver: Named, method: str, *arguments: object, context: Context = NO_CONTEXT) -> object:
    """What the backend answers, whatever it declares; the context for a method that takes one."""
    bound = cast("Callable[..., object]", getattr(driver, method))
    more = {"context": context} if takes_context(bound) else {}
    return ask(driver, method, lambda: bound(*arguments, **more))


def ask(driver: Named, method: str, call: Callable[[], T]) -> T:
    """What a driver answers; PluginError for an exception of its own, sys.exit() too."""
    try:
        return call()
    except (HostdevError, KeyboardInterrupt):  # the latter is a signal's
        raise
    except BaseException as error:
        raise PluginError(
            f"driver {driver.name}: {method} raised {error!r:.200}",
            plugin=driver.name,
            hook=method,
        ) from error


def _is_of_texts(step: BackendStep) -> bool:
    name, device, words = cast("tuple[object, object, object]", step)
    return are_texts((name, device)) and are_texts(words)


def are_texts(value: object) -> bool:
    """Whether it is a tuple or a list of texts, and not one text."""
    return are_all(value, _is_text)


def are_all(value: object, is_one: Callable[[object], bool]) -> bool:
    """Whether it is a tuple or a list of such things alone."""
    if not isinstance(value, (tuple, list)):
        return False
    return all(map(is_one, cast("Sequence[object]", value)))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_assignment(value: object) -> bool:
    return isinstance(value, Assignment)


def _is_device(value: object) -> bool:
    return hasattr(value, "used_by")


def _wrong(driver: Named, method: str, answer: object, wanted: str) -> PluginError:
    return PluginError(
        f"driver {driver.name}: {method} answered {answer!r:.120}; wanted {wanted}",
        plugin=driver.name,
        hook=method,
    )
