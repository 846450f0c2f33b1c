"""Check the answers and the exceptions of a driver's methods, as they come in.

An answer of another form than the interface wants, or an exception that hostdev does not know, is a
PluginError that names the driver and the method, before anything is obeyed or recorded.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, ClassVar, Protocol, TypeGuard, TypeVar, cast

from hostdev_core.errors import HostdevError, PluginError
from hostdev_core.model.assignment import Assignment
from hostdev_core.model.context import NO_CONTEXT, Context, takes_context
from hostdev_core.model.domain import Domain

T = TypeVar("T")
_TEXT: frozenset[object] = frozenset({str})


class Named(Protocol):
    """Any driver: an error names it."""

    name: ClassVar[str]


def call_driver(driver: Named, method: str, call: Callable[[], T]) -> T:
    """Call a driver and return its answer; PluginError for an exception of its own, sys.exit() too."""
    try:
        return call()
    except (HostdevError, KeyboardInterrupt):  # the latter is a signal's
        raise
    except BaseException as error:
        raise _raised(driver, method, error) from error


def call_method(
    driver: Named, method: str, *arguments: object, context: Context = NO_CONTEXT
) -> object:
    """Call a method of a driver by its name, with the context where it takes one; as `call_driver`."""
    bound: Any = getattr(driver, method)
    function = bound.__func__ if type(bound) is MethodType else bound
    more = {"context": context} if takes_context(function) else {}
    try:
        return bound(*arguments, **more)
    except (HostdevError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(driver, method, error) from error


def _raised(driver: Named, method: str, error: BaseException) -> PluginError:
    return PluginError(
        f"driver {driver.name}: {method} raised {error!r:.200}", plugin=driver.name, hook=method
    )


def wrong_answer(driver: Named, method: str, answer: object, wanted: str) -> PluginError:
    """The error for an answer of another form than is wanted."""
    return PluginError(
        f"driver {driver.name}: {method} answered {answer!r:.120}; wanted {wanted}",
        plugin=driver.name,
        hook=method,
    )


def domain_arguments(
    driver: Named, assignments: Sequence[Assignment], context: Context = NO_CONTEXT
) -> tuple[str, ...]:
    """Ask any driver for the hypervisor's words for a whole domain, in a sequence."""
    answer = call_method(driver, "domain_arguments", assignments, context=context)
    if not are_texts(answer):
        wanted = "words in a tuple, like ('--device', 'x', 'y')"
        raise wrong_answer(driver, "domain_arguments", answer, wanted)
    return tuple(answer)


def check_lent(driver: Named, method: str, answer: object, domain: Domain) -> None:
    """Raise unless a driver answers Assignments of this domain, a local one for each of its hostdevs."""
    number = len(domain.hostdevs)
    lent = cast("Sequence[Assignment]", answer)
    is_counted = method == "prepare_hostdevs" and hasattr(driver, "stubs")
    if not are_all(answer, _is_assignment) or (is_counted and len(lent) != number):
        wanted = f"an Assignment for each of {number} hostdevs; what it lent is taken back"
        raise wrong_answer(driver, method, answer, wanted)
    for each in lent:
        owner = each.device.used_by if each.device is not None else None
        if owner is not None and owner.domain != domain.name:
            wanted = f"what it lent to {domain.name}; it is taken back"
            raise wrong_answer(driver, method, f"a device of {owner}", wanted)


def check_seen(driver: Named, method: str, answer: object) -> None:
    """Raise unless a driver answers a Plan, or devices, as the method is to."""
    if method == "plan" and not hasattr(answer, "to_dict"):
        raise wrong_answer(driver, method, answer, "a Plan")
    if method != "plan" and not are_all(answer, _is_device):
        raise wrong_answer(driver, method, answer, "devices, in a tuple")


def check_returned(driver: Named, method: str, answer: object) -> None:
    """Raise unless a driver answers the addresses that were given back."""
    if not are_texts(answer):
        wanted = "the addresses that were given back, in a tuple"
        raise wrong_answer(driver, method, answer, wanted)


def are_texts(value: object) -> TypeGuard[Sequence[str]]:
    """Whether it is a tuple or a list of texts, and not one text."""
    if type(value) is tuple:  # as nearly always
        known: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]  # of anything
        return _TEXT.issuperset(map(type, known)) or are_all(known, _is_text)
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
