"""Checks of a plugin: its name, the form of its hooks, and the form of their answers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from hostdev_core.checks import are_texts
from hostdev_core.errors import PluginError
from hostdev_core.model.address import is_word
from hostdev_core.model.rulebook import Refusal

if TYPE_CHECKING:
    from pluggy import HookImpl, PluginManager


def check_form(manager: "PluginManager", plugin: object, name: str) -> None:
    """Raise PluginError for hooks that pluggy would let pass: misspelt, wrappers, or without the mark."""
    callers = manager.get_hookcallers(plugin) or ()
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin and (problem := _problem(impl, caller.has_spec())):
                raise _error(name, caller.name, problem)
    marked = {caller.name for caller in callers}
    # Without the hooks that other plugins made up.
    for hook, caller in vars(manager.hook).items():
        if caller.has_spec() and hook not in marked and callable(getattr(plugin, hook, None)):
            raise _error(name, hook, "is not marked; put @hookimpl before it")


def check_is_list(answer: object, plugin: str, hook: str) -> None:
    """Raise PluginError for a text where several things are wanted: it would be read letter by letter."""
    if isinstance(answer, (str, bytes)):
        raise _error(plugin, hook, f"answered the text {answer!r:.80}; wanted a list or a tuple")


def check_refusal(answer: object, plugin: str) -> None:
    """Raise PluginError for a refusal that cannot be shown, or whose rule cannot be typed for --allow."""
    if not isinstance(answer, Refusal):
        problem = f"answered {answer!r:.80}; wanted Refusal"
    elif not is_word(answer.rule) or " " in answer.rule:
        problem = f"refuses by rule {answer.rule!r:.80}; wanted one word, for --allow"
    elif not isinstance(answer.device, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        problem = f"refuses the device {answer.device!r:.80}; wanted its address: device.name"
    elif not isinstance(answer.reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        problem = f"gives the reason {answer.reason!r:.80}; wanted a text"
    elif not are_texts(answer.evidence):
        problem = f"has the evidence {answer.evidence!r:.80}; wanted texts in a tuple"
    else:
        return
    raise _error(plugin, "hostdev_check", problem)


def refusals_in(answer: object, plugin: str) -> list[Refusal]:
    """Read the answer of hostdev_check; None is no refusal. Raises PluginError as `check_refusal`."""
    refusals = [] if answer is None else [*cast("Iterable[Refusal]", answer)]
    for refusal in refusals:
        check_refusal(refusal, plugin)
    return refusals


def refusing_rules(answer: object, plugin: str) -> frozenset[str]:
    """Read the answer of hostdev_rules; PluginError for a name that is not one word."""
    names = [] if answer is None else [*cast("Iterable[object]", answer)]
    for name in names:
        if not is_word(name) or " " in str(name):
            raise _error(plugin, "hostdev_rules", f"answered {name!r:.80}; wanted words in a tuple")
    return frozenset(map(str, names))


def _problem(impl: "HookImpl", specified: bool) -> str | None:
    # `optionalhook=True` marks a hook of a later hostdev, which may be unknown here.
    if not specified:
        unknown = "is no hook of hostdev; hostdev_core/hookspecs.py lists them"
        return None if impl.optionalhook else unknown
    if impl.hookwrapper or impl.wrapper:
        return "is a wrapper; hostdev takes none"
    return None


def _error(plugin: str, hook: str, problem: str) -> PluginError:
    return PluginError(f"plugin {plugin}: {hook} {problem}", plugin=plugin, hook=hook)


def name_of(plugin: object) -> str:
    """Name a plugin: a module or class by its name, an object by its class's name and its own id."""
    name = getattr(plugin, "__name__", None)
    return str(name) if name else f"{type(plugin).__name__}-{id(plugin):x}"
