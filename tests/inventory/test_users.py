"""A kernel that does not return: the error, the record and `hostdev status` name who uses the device."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelTimeoutError,
    LocalHostdevDriver,
    ReattachError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.inventory.users import find_users
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.helpers.processes import wait_until
from tests.helpers.users import (
    CARD,
    FIRST_THREAD_ENDS,
    HUB,
    configured,
    having_open,
    mount,
    mounted,
    mounted_by_source,
    mounted_from_two_ports,
    mounted_on_top,
    named_in_bytes,
    number_of,
    plug_in,
    put,
    routed,
    swapped_to,
    taking,
)
from tests.sample import NIC

SHORT = Deadlines(unbind=0.5, bind=0.5, reset=0.5)


@pytest.fixture
def hasty(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    """For calls whose only unbind, bind or reset hangs."""
    own = SimulatedHost.open(host.root, deadlines=SHORT)
    with open_connection("qemu:///system", host=own, registry=registry) as conn:
        yield conn
    host.release()


USES = [mounted, mounted_by_source, mounted_on_top, mounted_from_two_ports, swapped_to]


@pytest.mark.parametrize("use", [*USES, configured, named_in_bytes, routed])
def test_what_the_host_itself_does_with_it(
    host: SimulatedHost, hasty: Connection, use: Callable[[SimulatedHost], str]
) -> None:
    """Also when the driver's remove has taken the disk and the interface away before it waits."""
    plug_in(host)
    words = use(host)
    before = host.snapshot()
    host.on_write("bus/pci/drivers/combi/unbind", hang=True)
    with pytest.raises(KernelTimeoutError) as raised:
        hasty.prepare_hostdevs(taking(CARD))
    assert ", ".join(raised.value.holders) == words
    assert f"held by {words};" in str(raised.value)
    (record,) = host.ledger.records()
    assert record.stuck == str(raised.value)
    assert words in run("status", host=host).stdout
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


@pytest.mark.parametrize(
    "node",
    [
        "dri/card0",
        "dri/renderD128",
        "snd/pcmC0D0p",
        "snd/controlC0",
        "nvme0n1",
        "nvme0n1p2",
        "bus/usb/001/002",
    ],
)
def test_a_process_with_a_node_that_is_gone_by_now(
    host: SimulatedHost, hasty: Connection, node: str
) -> None:
    plug_in(host)
    card = HUB if "usb" in node else CARD
    before = host.snapshot()
    host.on_write("bus/pci/drivers/*/unbind", value=card, hang=True)
    with having_open(host.path(f"dev/{node}"), host.path("dev/vfio/vfio")) as pid:
        with pytest.raises(KernelTimeoutError) as raised:
            hasty.prepare_hostdevs(taking(card))
        assert not os.path.exists(host.path(f"dev/{node}"))
    (holder,) = raised.value.holders
    assert holder.endswith(f" (pid {pid}, {host.path(f'dev/{node}')})")
    assert holder in (host.ledger.records()[0].stuck or "")
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


def test_a_process_whose_first_thread_has_ended(host: SimulatedHost) -> None:
    """As a killed hypervisor looks while the kernel keeps one of its threads: a zombie, with files."""
    plug_in(host)
    with having_open(host.path("dev/dri/card0"), program=FIRST_THREAD_ENDS) as pid:
        wait_until(lambda: "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
        (user,) = find_users(host, CARD)
    assert f"pid {pid}," in user


def test_nobody_is_named_when_nobody_uses_it(host: SimulatedHost, hasty: Connection) -> None:
    """Others' nodes, mounts and interfaces are no business of this device."""
    plug_in(host)
    host.add_pci("0000:07:00.0", kernel_driver="nvme", block="sda", net="eth7")
    mount(host, number_of(host, "sda"), "/dev/sda", "/home")
    put(host, "sys/class/net/eth7/flags", "0x1003\n")
    host.on_write("bus/pci/drivers/combi/unbind", hang=True)
    with having_open(host.path("dev/sda")), pytest.raises(KernelTimeoutError) as raised:
        hasty.prepare_hostdevs(taking(CARD))
    assert raised.value.holders == ()
    assert "held by" not in str(raised.value)


def test_a_long_list_is_cut_in_the_message_alone(host: SimulatedHost, hasty: Connection) -> None:
    plug_in(host)
    number = number_of(host, "nvme0n1")
    lines = (f"36 35 {number} / /mnt/{n:02} rw - ext4 /dev/nvme0n1 rw\n" for n in range(30))
    put(host, "proc/self/mountinfo", "".join(lines))
    host.on_write("bus/pci/drivers/combi/unbind", hang=True)
    with pytest.raises(KernelTimeoutError) as raised:
        hasty.prepare_hostdevs(taking(CARD))
    assert len(raised.value.holders) == 30
    assert "/mnt/09, 20 more; the device" in str(raised.value)


def test_each_write_names_who_is_there_at_its_time(
    host: SimulatedHost, conn: Connection, registry: Registry
) -> None:
    """An unbind from the stub: who has the group open. The bind after it: nobody any more."""
    plug_in(host)
    before = host.snapshot()
    for path, short, named in (
        ("vfio-pci/unbind", Deadlines(unbind=0.5), True),
        ("combi/bind", Deadlines(bind=0.5), False),
    ):
        conn.prepare_hostdevs(taking(CARD))
        mount(host, "259:7", "/dev/nvme0n1", "/srv")  # what it was before it was lent, is over
        host.on_write(f"bus/pci/drivers/{path}", hang=True)
        # Opened without the lock of a simulated group, as if the holder guard had been slipped past.
        own = SimulatedHost.open(host.root, deadlines=short)
        with (
            open_connection("qemu:///system", host=own, registry=registry) as hasty,
            having_open(host.path("dev/vfio/5")) as pid,
            pytest.raises(ReattachError) as raised,
        ):
            hasty.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, KernelTimeoutError)
        assert error.value == CARD
        assert [f"pid {pid}," in holder for holder in error.holders] == [True] * named
        host.release()
        wait_until(lambda: host.ledger.records() == [])
        assert host.snapshot() == before


def test_a_reset_that_hangs(host: SimulatedHost, conn: Connection, hasty: Connection) -> None:
    """The device is stuck while it lasts, and back on its list afterwards."""
    before = host.snapshot()
    conn.detach_device(NIC)
    detached = host.snapshot()
    host.on_write(f"bus/pci/devices/{NIC}/reset", hang=True)
    with having_open(host.path("dev/vfio/1")) as pid, pytest.raises(KernelTimeoutError) as raised:
        hasty.reset_device(NIC)
    assert [f"pid {pid}," in holder for holder in raised.value.holders] == [True]
    assert raised.value.value == NIC
    (record,) = host.ledger.records()
    assert record.stuck == str(raised.value)
    status = run("status", host=host)
    assert status.returncode == 3
    assert f"pid {pid}," in status.stdout
    with pytest.raises(DeviceInUseError, match=f"reset {NIC}"):
        hasty.prepare_hostdevs(Domain("vm1", [NIC]))
    host.release()
    wait_until(lambda: [record.stuck for record in host.ledger.records()] == [None])
    assert host.snapshot() == detached
    conn.reset_device(NIC)
    conn.reattach_device(NIC)
    assert host.snapshot() == before


def test_a_device_that_does_not_even_answer(host: SimulatedHost, registry: Registry) -> None:
    """Somebody else's unbind hangs: nothing is changed, and who uses the device is named."""
    host.modules.load("vfio-pci")
    host.add_pci(CARD, kernel_driver="vfio-pci", iommu_group=5)
    host.on_write("bus/pci/drivers/vfio-pci/unbind", hang=True)
    foreign = threading.Thread(
        target=host.sysfs.write, args=("bus/pci/drivers/vfio-pci/unbind", CARD)
    )
    foreign.start()
    host.wait_hanging()
    with (
        having_open(host.path("dev/vfio/5")) as pid,
        open_connection(
            "qemu:///system", host=host, registry=registry, deadlines=Deadlines(attribute=0.5)
        ) as conn,
        pytest.raises(KernelTimeoutError) as raised,
    ):
        conn.prepare_hostdevs(taking(CARD))
    assert [f"pid {pid}," in holder for holder in raised.value.holders] == [True]
    assert f"pid {pid}," in str(raised.value)
    assert host.ledger.records() == []
    host.release()
    foreign.join()


@pytest.mark.parametrize("uri", ["qemu:///system", "mine:///system"])
def test_who_has_its_vfio_device_and_no_group_keeps_it(
    host: SimulatedHost, registry: Registry, uri: str
) -> None:
    """As a hypervisor with iommufd has it; a backend need not know of that."""
    registry.register(MinePlugin(), name="mine")
    with open_connection(uri, host=host, registry=registry) as conn:
        before = host.snapshot()
        conn.detach_device(NIC)
        detached = host.snapshot()
        (name,) = host.sysfs.names(f"bus/pci/devices/{NIC}/vfio-dev")
        node = Path(host.path(f"dev/vfio/devices/{name}"))
        node.parent.mkdir()
        node.touch()
        with having_open(str(node)) as pid:
            with pytest.raises(DeviceInUseError, match=f"{NIC} is held by .*pid {pid},"):
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            with pytest.raises(DeviceInUseError, match=f"{NIC} is held by .*pid {pid},"):
                conn.reset_device(NIC)
            with pytest.raises(ReattachError) as raised:
                conn.reattach_device(NIC)
            (error,) = raised.value.exceptions
            assert isinstance(error, DeviceInUseError)
            assert host.snapshot() == detached
        conn.reset_device(NIC)
        conn.reattach_device(NIC)
    assert host.snapshot() == before


class MinePlugin:
    @hookimpl
    def hostdev_drivers(self) -> list[LocalHostdevDriver]:
        members = {"name": "mine", "uri_schemes": ("mine",), "stubs": ("vfio-pci",)}
        return [type("Mine", (LocalHostdevDriver,), members)()]
