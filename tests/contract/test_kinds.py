"""The contract for kinds of backends that none of the shipped drivers is."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hostdev_core import (
    BackendStep,
    Connection,
    Context,
    Host,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    USBDevice,
)
from hostdev_core.testing import DriverContract

SOME = ["prepare a group", "reattach a group"]
Device = PCIDevice | USBDevice


class OwnStub(LocalHostdevDriver):
    """Its stub driver is its own, in a module of another name; it lends without VFIO."""

    name = "own"
    uri_schemes = ("own",)
    stubs = ("own-stub",)
    stub_modules = {"own-stub": "own_hypervisor"}
    takes_usb = False

    def open_backend(self, conn: Connection) -> OpenResult:
        conn.hostdev_private_data = {"folder": "run/own"}
        return OpenResult.SUCCESS

    def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
        return [BackendStep("tell", device.name)]

    def run_step(self, host: Host, step: BackendStep, *, context: Context | None = None) -> None:
        assert context is not None
        folder = Path(host.path(context.private_data["folder"]))
        name = "-" if context.domain is None else context.domain.name
        while True:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another lane's undo has just taken the folder away
                (folder / step.device).write_text(name)
                return

    def undo_step(self, host: Host, step: BackendStep) -> None:
        folder = Path(host.path("run/own"))
        (folder / step.device).unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, or another lane was first
            folder.rmdir()

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        return ("--device", device.name)


class NoIOMMU(LocalHostdevDriver):
    """Its hypervisor keeps devices apart by itself, as Xen does."""

    name = "apart"
    uri_schemes = ("apart",)
    stubs = ("pci-stub",)
    needs_iommu = False

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        return ("--device", device.name)


class TestOwnStub(DriverContract):
    driver = OwnStub

    def scenarios(self) -> list[str]:
        return SOME


class TestNoIOMMU(DriverContract):
    driver = NoIOMMU

    def scenarios(self) -> list[str]:
        return SOME
