"""A backend as planning and lending ask it, and on whose behalf they do.

Each answer is checked before it is obeyed or recorded; LocalHostdevDriver has the contract of each method.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import attrs

from hostdev_core.checks import are_texts, call_driver, call_method, wrong_answer
from hostdev_core.model.context import Context
from hostdev_core.model.device import Device, PCIDevice, UsedBy
from hostdev_core.model.domain import Domain, Hostdev
from hostdev_core.model.names import is_path_part, is_stub_name
from hostdev_core.model.plan import BackendStep

if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.registry.hooks import Hooks


class BackendDriver(Protocol):
    """The attributes of a LocalHostdevDriver; its methods are called by their names."""

    name: ClassVar[str]
    stubs: ClassVar[tuple[str, ...]]
    stub_modules: ClassVar[Mapping[str, str]]
    needs_iommu: ClassVar[bool]
    takes_usb: ClassVar[bool]
    tries_vfio: ClassVar[bool]


@attrs.frozen(eq=False)
class CheckedBackend:
    """A backend, bound to the host it is asked about and to the context that its methods are told.

    Every method raises PluginError, naming the driver and its method, for an answer that cannot be used
    and for an exception that is none of hostdev's.
    """

    driver: BackendDriver
    host: "Host"
    context: Context

    def about(
        self, domain: Domain | UsedBy | None, hostdev: Hostdev | None = None
    ) -> "CheckedBackend":
        """Bind it to this domain, or borrower, and hostdev; the connection's data stays its own."""
        if isinstance(domain, UsedBy):
            domain = Domain(domain.domain, uuid=domain.uuid)
        its = self.context
        context = Context(
            uri=its.uri, private_data=its.private_data, domain=domain, hostdev=hostdev
        )
        return CheckedBackend(self.driver, self.host, context)

    @property
    def name(self) -> str:
        """The name of its driver, by which the ledger has it."""
        return self.driver.name

    @property
    def stubs(self) -> tuple[str, ...]:
        """The stub drivers that it accepts, the default first."""
        return self.driver.stubs

    @property
    def stub_modules(self) -> Mapping[str, str]:
        """The modules of stub drivers that have another name."""
        return self.driver.stub_modules

    def choose_stub(self, device: PCIDevice) -> str:
        """Ask for the stub of a device, or the module that brings it."""
        answer = self._call("choose_stub", self.host, device)
        if not is_stub_name(answer):
            wanted = "the name of a kernel driver, like 'vfio-pci'"
            raise wrong_answer(self.driver, "choose_stub", answer, wanted)
        return answer

    def accepts_stub(self, kernel_driver: str | None) -> bool:
        """Ask whether a device on this kernel driver, if on any, can stay there for the backend."""
        return kernel_driver is not None and self._is("accepts_stub", kernel_driver)

    def is_guest_stub(self, kernel_driver: str | None) -> bool:
        """Ask whether guests get a device from this stub; one that is not is for detach alone."""
        return kernel_driver is not None and self._is("is_guest_stub", kernel_driver)

    def check_device(self, device: PCIDevice) -> None:
        """Raise the backend's reason against a device, where it has one."""
        answer = self._call("check_device", self.host, device)
        if answer is not None:
            wanted = "None, or NotAssignableError raised"
            raise wrong_answer(self.driver, "check_device", answer, wanted)

    def holders(self, device: PCIDevice) -> tuple[str, ...]:
        """Ask which guests have a device, by the backend's knowledge; one text is one holder."""
        answer = self._call("holders", self.host, device)
        if answer == ():
            return ()
        words = (answer,) if isinstance(answer, str) else answer
        if words is not None and not are_texts(words):
            wanted = "who has the device, in words, like ['vm1']"
            raise wrong_answer(self.driver, "holders", answer, wanted)
        return tuple(words or ())

    def extra_steps(self, device: PCIDevice) -> tuple[BackendStep, ...]:
        """Ask for the backend's own steps for a device: BackendSteps made of texts."""
        return self._steps("extra_steps", device)

    def leftover_steps(self, device: PCIDevice) -> tuple[BackendStep, ...]:
        """Ask for those of its own steps that are not undone yet for a device without a record."""
        return self._steps("leftover_steps", device)

    def _steps(self, method: str, device: PCIDevice) -> tuple[BackendStep, ...]:
        answer = self._call(method, self.host, device)
        if answer == ():
            return ()
        if isinstance(answer, BackendStep) or not isinstance(answer, Iterable):
            raise wrong_answer(self.driver, method, answer, "a sequence of BackendStep")
        every = cast("Iterable[object]", answer)
        steps = call_driver(self.driver, method, partial(list[object], every))  # or a generator
        for step in steps:
            if not isinstance(step, BackendStep) or not _is_of_texts(step):
                wanted = "BackendStep(name, device, arguments), all of them texts"
                raise wrong_answer(self.driver, method, step, wanted)
        return tuple(cast("list[BackendStep]", steps))

    def found_on(self, device: PCIDevice) -> str | None:
        """Ask which kernel driver a device was found on, where the backend keeps that."""
        answer = self._call("found_on", self.host, device)
        if answer is not None and not (is_path_part(answer) and str(answer).isprintable()):
            wanted = "the name of a kernel driver, or None"
            raise wrong_answer(self.driver, "found_on", answer, wanted)
        return answer

    def run_step(self, step: BackendStep) -> None:
        """Let the backend do one of its steps."""
        self._do("run_step", step)

    def undo_step(self, step: BackendStep) -> None:
        """Let the backend undo one of its steps."""
        self._do("undo_step", step)

    def forget_step(self, step: BackendStep) -> None:
        """Let the backend undo one of its steps whose device is gone, or replaced by another one."""
        self._do("forget_step", step)

    def _do(self, method: str, step: BackendStep) -> None:
        """Take False for a failure, as in many a program: nobody may think the step done."""
        if self._call(method, self.host, step) is False:
            wanted = f"None, or an exception raised: is {step} done?"
            raise wrong_answer(self.driver, method, False, wanted)

    def node(self, device: Device) -> str | None:
        """Ask for the node that the hypervisor opens for a device."""
        answer = self._call("node", self.host, device)
        if answer is not None and not isinstance(answer, str):
            raise wrong_answer(self.driver, "node", answer, "the path of a device node, or None")
        return answer

    def arguments(self, device: Device, node: str | None) -> tuple[str, ...]:
        """Ask for the hypervisor's words for a device, in a sequence: one text is none."""
        answer = self._call("arguments", device, node)
        if not are_texts(answer):
            wanted = "words in a tuple, like ('--device', 'x')"
            raise wrong_answer(self.driver, "arguments", answer, wanted)
        return tuple(answer)

    def _is(self, method: str, kernel_driver: str) -> bool:
        """Ask for a yes or no; None is a `return` that was forgotten."""
        answer = call_method(self.driver, method, kernel_driver)
        if answer is None:
            raise wrong_answer(self.driver, method, answer, "True or False")
        return bool(answer)

    def _call(self, method: str, *arguments: object) -> object:
        return call_method(self.driver, method, *arguments, context=self.context)


def _is_of_texts(step: BackendStep) -> bool:
    name, device, words = cast("tuple[object, object, object]", step)
    return are_texts((name, device)) and are_texts(words)


@attrs.frozen(kw_only=True)
class Caller:
    """The host, the hooks of the connection, and the backends whose steps its ledger may hold.

    Enough to give back: a record names the backend that lent its device, whichever driver is in the slot.
    `find_backend` answers None for one that is not loaded; `backend_names` are those that are.
    """

    host: "Host"
    hooks: "Hooks"
    find_backend: Callable[[str], CheckedBackend | None]
    backend_names: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Lender(Caller):
    """The same with the backend in the slot, which lends."""

    backend: CheckedBackend
