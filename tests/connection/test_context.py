"""What a backend's methods are told: the private data of their connection, the domain, the hostdev."""

from collections.abc import Sequence
from typing import Any

import pytest

from hostdev_core import (
    Assignment,
    BackendStep,
    Connection,
    Context,
    Domain,
    Host,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    PCIHostdev,
    PrepareFlags,
    Registry,
    USBDevice,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Plugin
from tests.helpers.processes import OtherDriver
from tests.sample import GPU, NIC, SOUND

pytestmark = pytest.mark.sample

TOLD: list[tuple[str, str, Any, str | None, str | None]] = []


def note(method: str, device: str, context: Context) -> None:
    domain, hostdev = context.domain, context.hostdev
    TOLD.append(
        (method, device, context.private_data, domain and domain.name, hostdev and str(hostdev))
    )


class Telling(LocalHostdevDriver):
    """Every method wants to know."""

    name = "telling"
    uri_schemes = ("telling",)
    stubs = ("vfio-pci",)

    def open_backend(self, conn: Connection) -> OpenResult:
        conn.hostdev_private_data = "the daemon's socket"
        return OpenResult.SUCCESS

    def choose_stub(self, host: Host, device: PCIDevice, *, context: Context | None = None) -> str:
        assert context is not None
        note("choose_stub", device.name, context)
        return super().choose_stub(host, device)

    def check_device(self, host: Host, device: PCIDevice, context: Context | None = None) -> None:
        assert context is not None
        note("check_device", device.name, context)

    def holders(
        self, host: Host, device: PCIDevice, *, context: Context | None = None
    ) -> Sequence[str]:
        assert context is not None
        note("holders", device.name, context)
        return ()

    def extra_steps(
        self, host: Host, device: PCIDevice, *, context: Context | None = None
    ) -> Sequence[BackendStep]:
        assert context is not None
        note("extra_steps", device.name, context)
        return [BackendStep("tell", device.name)]

    def run_step(self, host: Host, step: BackendStep, *, context: Context | None = None) -> None:
        assert context is not None
        note("run_step", step.device, context)

    def undo_step(self, host: Host, step: BackendStep, *, context: Context | None = None) -> None:
        assert context is not None
        note("undo_step", step.device, context)

    def node(
        self, host: Host, device: PCIDevice | USBDevice, *, context: Context | None = None
    ) -> str | None:
        assert context is not None
        note("node", device.name, context)
        return None

    def arguments(
        self, device: PCIDevice | USBDevice, node: str | None, *, context: Context | None = None
    ) -> Sequence[str]:
        assert context is not None
        note("arguments", device.name, context)
        return (f"{context.private_data}:{device.name}",)

    def domain_arguments(
        self, assignments: Sequence[Assignment], *, context: Context | None = None
    ) -> Sequence[str]:
        assert context is not None
        note("domain_arguments", "", context)
        return super().domain_arguments(assignments)


@pytest.fixture
def registry() -> Registry:
    TOLD.clear()
    registry = Registry()
    registry.register(Plugin(Telling()), name="telling")
    registry.register(Plugin(OtherDriver()), name="other")
    return registry


def told(*methods: str) -> set[tuple[str, str, Any, str | None, str | None]]:
    return {row for row in TOLD if row[0] in methods}


def test_a_prepare_tells_the_domain_and_each_hostdev(
    host: SimulatedHost, registry: Registry
) -> None:
    data = "the daemon's socket"
    with open_connection("telling:///system", host=host, registry=registry) as conn:
        lent = conn.prepare_hostdevs(
            Domain("vm1", [NIC, PCIHostdev(address=GPU)]), PrepareFlags.WHOLE_GROUP
        )
        for method in ("choose_stub", "check_device", "extra_steps", "run_step", "holders"):
            assert told(method) == {
                (method, NIC, data, "vm1", NIC),
                (method, GPU, data, "vm1", GPU),
                (method, SOUND, data, "vm1", None),  # a sibling of its group: nobody asked for it
            }
        assert told("node") == {("node", name, data, "vm1", name) for name in (NIC, GPU)}
        TOLD.clear()
        assert conn.arguments(lent) == (f"{data}:{NIC}", f"{data}:{GPU}")
        assert told("domain_arguments") == {("domain_arguments", "", data, "vm1", None)}
        TOLD.clear()
        conn.reattach_hostdevs("vm1")
    assert told("undo_step", "holders") == {
        (method, name, data, "vm1", None)
        for method in ("undo_step", "holders")
        for name in (NIC, GPU, SOUND)
    }


def test_a_detach_has_no_domain(host: SimulatedHost, registry: Registry) -> None:
    with open_connection("telling:///system", host=host, registry=registry) as conn:
        conn.detach_device(NIC)
        conn.reattach_device(NIC)
        data = conn.hostdev_private_data
    assert told("run_step") == {("run_step", NIC, data, None, NIC)}
    assert told("undo_step") == {("undo_step", NIC, data, None, None)}


def test_another_drivers_connection_has_no_private_data_of_its_own_for_it(
    host: SimulatedHost, registry: Registry
) -> None:
    with open_connection("telling:///system", host=host, registry=registry) as conn:
        conn.detach_device(NIC)
    TOLD.clear()
    with open_connection("other:///system", host=host, registry=registry) as conn:
        conn.reattach_device(NIC)
    assert told("undo_step") == {("undo_step", NIC, None, None, None)}


def test_the_uuid_is_told_on_the_way_back(host: SimulatedHost) -> None:
    found: list[Context] = []

    class Listening(OtherDriver):
        def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
            return [BackendStep("tell", device.name)]

        def run_step(self, host: Host, step: BackendStep) -> None:
            """Nothing to do; without a context, as before there was one."""

        def undo_step(
            self, host: Host, step: BackendStep, *, context: Context | None = None
        ) -> None:
            assert context is not None
            found.append(context)

    registry = Registry()
    registry.register(Plugin(Listening()), name="listening")
    uuid = "0d8f4b7e-1c5a-4b6e-9d0f-2a3b4c5d6e7f"
    with open_connection("other:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC], uuid=uuid))
        conn.reattach_hostdevs("vm1")
    assert found == [Context(uri="other:///system", domain=Domain("vm1", uuid=uuid))]


def test_a_keyword_of_that_name_alone_is_filled(host: SimulatedHost) -> None:
    class Passing(OtherDriver):
        """Passes on whatever it gets: the method that it overrides takes no context."""

        def node(self, *words: Any, **more: Any) -> str | None:
            return super().node(*words, **more)

    registry = Registry()
    registry.register(Plugin(Passing()), name="passing")
    with open_connection("other:///system", host=host, registry=registry) as conn:
        (lent,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert lent.node == host.path("dev/vfio/1")
