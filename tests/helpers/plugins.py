"""Plugins of the tests: one that refuses, one that follows what it is told."""

from collections.abc import Iterable, Sequence

import attrs

from hostdev_core import (
    Connection,
    PCIDevice,
    Refusal,
    USBDevice,
    hookimpl,
)

Devices = Sequence[PCIDevice | USBDevice]


@attrs.define(eq=False)
class Refuses:
    rule: str
    addresses: tuple[str, ...]
    calls: int = 0

    @hookimpl
    def hostdev_check(self, devices: Devices) -> Iterable[Refusal]:
        self.calls += 1
        return [
            Refusal(self.rule, device.name, "it carries the root file system", ("/dev/sda1",))
            for device in devices
            if device.name in self.addresses
        ]


@attrs.define(eq=False)
class Follows:
    """Writes down what it is told; raises in the hooks that are named."""

    name: str
    told: list[str]
    raising: tuple[str, ...] = ()
    error: type[Exception] = RuntimeError

    def _tell(self, hook: str) -> None:
        self.told.append(f"{self.name} {hook}")
        if hook in self.raising:
            raise self.error(f"{self.name} does not like it")

    @hookimpl
    def hostdev_connection_opened(self, conn: Connection) -> None:
        self._tell("opened")

    @hookimpl
    def hostdev_connection_closing(self, conn: Connection) -> None:
        self._tell("closing")

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        self._tell("before_prepare")

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        self._tell("after_prepare")

    @hookimpl
    def hostdev_prepare_failed(self, error: BaseException) -> None:
        self._tell("prepare_failed")

    @hookimpl
    def hostdev_before_reattach(self) -> None:
        self._tell("before_reattach")

    @hookimpl
    def hostdev_after_reattach(self) -> None:
        self._tell("after_reattach")
