"""A device that is pulled in the middle of a call is called pulled, and nothing is left of it."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import Connection, Domain, HostdevError, Registry, hookimpl, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC, make_host

BEFORE_THE_CLAIM = "there is no PCI device"


class Pull:
    """Pulls the card out at the nth moment of a call."""

    def __init__(self, host: SimulatedHost, number: int) -> None:
        self._host, self._left = SimulatedHost.open(host.root), number

    def __call__(self, what: str) -> None:
        del what
        self._left -= 1
        if self._left == 0:
            self._host.unplug(NIC)

    @property
    def is_done(self) -> bool:
        return self._left <= 0


def prepare(conn: Connection) -> object:
    return conn.prepare_hostdevs(Domain("vm1", [DISK, NIC]))


def detach(conn: Connection) -> object:
    return conn.detach_device(NIC)


def reset(conn: Connection) -> object:
    return conn.reset_device(NIC)


@pytest.mark.parametrize("call", [prepare, detach, reset])
def test_at_any_moment_of_a_call(
    tmp_path: Path, registry: Registry, call: Callable[[Connection], object]
) -> None:
    said = list[str]()
    for number in count(1):
        host = make_host(tmp_path / f"{number}")
        if call is reset:
            host.modules.load("vfio-pci")
            host.unplug(NIC)
            host.add_pci(NIC, kernel_driver="vfio-pci", iommu_group=1)
        others = {name: was for name, was in host.snapshot().items() if name != NIC}
        pull = Pull(host, number)
        with open_connection("qemu:///system", host=host, registry=registry) as conn:
            host.watch(pull)
            try:
                call(conn)
            except HostdevError as error:
                said.append(str(error))
                assert host.ledger.records() == []
                assert host.snapshot() == others
        if not pull.is_done:
            break
    assert len(said) > 3
    wrong = [text for text in said if f"{NIC} was unplugged meanwhile" not in text]
    assert [text for text in wrong if not text.startswith(BEFORE_THE_CLAIM)] == []


def test_while_a_plugin_is_told_of_the_end(host: SimulatedHost, registry: Registry) -> None:
    """All was bound: it is not lent all the same, and the other device is as it was."""
    before = host.snapshot()

    class Late:
        @hookimpl
        def hostdev_after_prepare(self) -> None:
            host.unplug(NIC)

    registry.register(Late(), name="late")
    with (
        open_connection("qemu:///system", host=host, registry=registry) as conn,
        pytest.raises(HostdevError, match=f"{NIC} was unplugged meanwhile"),
    ):
        prepare(conn)
    del before[NIC]
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_detached_one_that_was_pulled_is_not_called_replaced(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.detach_device(NIC)
    host.unplug(NIC)
    with pytest.raises(HostdevError, match=r"was unplugged|no PCI device") as raised:
        conn.reset_device(NIC)
    assert "replaced" not in str(raised.value)
