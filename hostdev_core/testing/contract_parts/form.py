"""The contract: what a driver says of itself is heard, every method that it has is called."""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from inspect import signature
from typing import Any

from hostdev_core import Context, LocalHostdevDriver
from hostdev_core.testing.contract_parts.base import ContractBase

# What hostdev calls a method with; `context` comes by name, where there is a keyword for it.
HOST_AND_DEVICE = ("host", "device")
CALLED_WITH = {
    "open_backend": ("conn",),
    "close_backend": ("conn",),
    "default_uri": ("host",),
    "host_for": ("uri",),
    "choose_stub": HOST_AND_DEVICE,
    "accepts_stub": ("kernel_driver",),
    "is_guest_stub": ("kernel_driver",),
    "check_device": HOST_AND_DEVICE,
    "holders": HOST_AND_DEVICE,
    "extra_steps": HOST_AND_DEVICE,
    "run_step": ("host", "step"),
    "undo_step": ("host", "step"),
    "forget_step": ("host", "step"),
    "leftover_steps": HOST_AND_DEVICE,
    "found_on": HOST_AND_DEVICE,
    "node": HOST_AND_DEVICE,
    "arguments": ("device", "node"),
    "domain_arguments": ("assignments",),
}


class Form(ContractBase):
    """A driver that is not called: names, signatures, steps that have their undo."""

    def test_no_name_is_misspelt(self) -> None:
        """A name that is nearly one of the interface's is never called: another one, or `_name`."""
        known = sorted(_public(LocalHostdevDriver))
        for name in sorted(_public(self.driver) - {*known}):
            near = get_close_matches(name, known, n=1, cutoff=0.8)
            assert not near, (
                f"{self.driver.__name__}.{name}: hostdev asks for {near[0]}, not for that"
            )

    def test_every_method_takes_what_it_is_called_with(self) -> None:
        for name, method in self._own_methods():
            try:
                known = signature(method)
            except ValueError as error:
                raise AssertionError(
                    f"{name}: {method!r} tells nothing of what it takes"
                ) from error
            words: dict[str, Any] = {"context": Context()} if "context" in known.parameters else {}
            try:
                known.bind(*CALLED_WITH[name], **words)
            except TypeError as error:
                wanted = ", ".join((*CALLED_WITH[name], *(f"{word}=" for word in words)))
                raise AssertionError(
                    f"{name}{known} is called as {name}({wanted}): {error}"
                ) from error

    def test_its_own_steps_are_done_and_undone(self) -> None:
        own = {name for name, _ in self._own_methods()}
        if "extra_steps" in own:
            assert "run_step" in own, (
                "extra_steps gives steps, and there is no run_step that does them"
            )
        if "run_step" in own:
            assert "undo_step" in own, (
                "run_step has no undo_step: a device comes back with what run_step did; where there is"
                " nothing to undo, say so in an undo_step that does nothing"
            )

    def _own_methods(self) -> Iterator[tuple[str, Callable[..., object]]]:
        driver = self.driver()
        for name in CALLED_WITH:
            if getattr(self.driver, name) is not getattr(LocalHostdevDriver, name):
                yield name, getattr(driver, name)


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}
