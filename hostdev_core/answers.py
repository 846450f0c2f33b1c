"""What a backend's methods answer: checked where it comes in, before it is obeyed or recorded."""

from collections.abc import Iterable, Sequence
from typing import cast

from hostdev_core.errors import PluginError
from hostdev_core.steps import BackendStep


def steps_of(driver: str, answer: object) -> tuple[BackendStep, ...]:
    """The answer of `extra_steps`; PluginError for anything but BackendSteps made of texts."""
    if isinstance(answer, BackendStep) or not isinstance(answer, Iterable):
        raise _wrong(driver, "extra_steps", answer, "a sequence of BackendStep")
    steps = [*cast("Iterable[object]", answer)]
    for step in steps:
        if not isinstance(step, BackendStep) or not _is_of_texts(step):
            wanted = "BackendStep(name, device, arguments), all of them texts"
            raise _wrong(driver, "extra_steps", step, wanted)
    return tuple(cast("list[BackendStep]", steps))


def stub_of(driver: str, answer: object) -> str:
    """The answer of `choose_stub`; PluginError for what is no single word."""
    if not isinstance(answer, str) or not answer or "/" in answer or not answer.isprintable():
        raise _wrong(driver, "choose_stub", answer, "the name of a kernel driver, like 'vfio-pci'")
    return answer


def words_of(driver: str, answer: object) -> tuple[str, ...]:
    """The answer of `arguments`; PluginError for one text, which is no sequence of words."""
    if not are_texts(answer):
        raise _wrong(driver, "arguments", answer, "words in a tuple, like ('--device', 'x')")
    return tuple(cast("list[str]", answer))


def _is_of_texts(step: BackendStep) -> bool:
    name, device, arguments = cast("tuple[object, object, object]", step)
    return are_texts((name, device)) and are_texts(arguments)


def are_texts(value: object) -> bool:
    """Whether it is a tuple or a list of texts, and not one text."""
    if not isinstance(value, (tuple, list)):
        return False
    return all(isinstance(text, str) for text in cast("Sequence[object]", value))


def _wrong(driver: str, method: str, answer: object, wanted: str) -> PluginError:
    return PluginError(
        f"driver {driver}: {method} answered {answer!r:.120}; wanted {wanted}",
        plugin=driver,
        hook=method,
    )
