"""A kernel that does not return: the error, the record and `hostdev status` name who uses the device."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelTimeoutError,
    LocalHostdevDriver,
    PCIAddress,
    PCIHostdev,
    ReattachError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.inventory.users import find_dependents, find_users
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.helpers.processes import wait_until
from tests.sample import NIC

CARD, HUB = "0000:05:00.0", "0000:06:00.0"
SHORT = Deadlines(unbind=0.5, bind=0.5, reset=0.5)


@pytest.fixture
def hasty(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    """For calls whose only unbind, bind or reset hangs."""
    own = SimulatedHost.open(host.root, deadlines=SHORT)
    with open_connection("qemu:///system", host=own, registry=registry) as conn:
        yield conn
    host.release()


OPEN = "import sys; files = [open(path) for path in sys.argv[1:]]; print(flush=True); input()"
FIRST_THREAD_ENDS = f"""
import ctypes, threading
threading.Thread(target=exec, args=({OPEN!r}, {{}})).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def having_open(*paths: str, program: str = OPEN) -> Generator[int]:
    """Another process has these files open; its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


def taking(card: str) -> Domain:
    """A domain that takes a card although somebody uses it."""
    return Domain("vm1", [PCIHostdev(address=PCIAddress.parse(card), allow=frozenset({"in-use"}))])


def plug_in(host: SimulatedHost) -> None:
    """A card that is all in one, and a USB controller."""
    host.add_pci(
        CARD,
        kernel_driver="combi",
        iommu_group=5,
        net="eth5",
        block=("nvme0n1", "nvme0n1p1", "nvme0n1p2"),
        drm=("card0", "renderD128"),
        sound=("controlC0", "pcmC0D0p"),
    )
    host.add_usb("1-1", controller=HUB)


def put(host: SimulatedHost, path: str, text: str) -> None:
    """Write a file that the kernel has, wherever the simulated one has none."""
    place = Path(host.path(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, "utf-8", "replace")


def number_of(host: SimulatedHost, name: str) -> str | None:
    return host.sysfs.read(f"class/block/{name}/dev")


def mount(host: SimulatedHost, number: str | None, source: str, place: str) -> None:
    line = f"36 35 {number} / {place} rw,noatime shared:1 - ext4 {source} rw\n"
    put(host, "proc/self/mountinfo", f"22 1 0:21 / /proc rw - proc proc rw\n{line}")


def mounted(host: SimulatedHost) -> str:
    mount(host, number_of(host, "nvme0n1p1"), "/dev/root", r"/srv/my\040files")
    return "nvme0n1p1 mounted at /srv/my files"


def mounted_by_source(host: SimulatedHost) -> str:
    """As btrfs has it, with a number of its own."""
    mount(host, "0:45", "/dev/nvme0n1p2", "/srv")
    return "nvme0n1p2 mounted at /srv"


def swapped_to(host: SimulatedHost) -> str:
    put(host, "proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 9 0 -2\n")
    return "swap on nvme0n1p2"


def stack(host: SimulatedHost, name: str, on: str) -> None:
    put(host, f"sys/class/block/{name}/dev", f"254:{len(name + on)}\n")
    Path(host.sysfs.path(f"class/block/{name}/holders")).mkdir()
    os.symlink("../../block", host.sysfs.path(f"class/block/{name}/subsystem"))
    os.symlink("/", host.sysfs.path(f"class/block/{on}/holders/{name}"))


def mounted_on_top(host: SimulatedHost) -> str:
    """A logical volume on a RAID on a partition."""
    stack(host, "md0", "nvme0n1p1")
    stack(host, "dm-0", "md0")
    mount(host, number_of(host, "dm-0"), "/dev/mapper/vg-root", "/")
    return "dm-0 mounted at /, md0 on nvme0n1p1, dm-0 on md0"


def mounted_from_two_ports(host: SimulatedHost) -> str:
    """An NVMe disk with several paths has its node below no device; each path names it."""
    disk = "sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1"
    put(host, f"{disk}/dev", "259:33\n")
    put(host, f"{disk}/nvme3n1p1/dev", "259:34\n")
    for folder in (disk, f"{disk}/nvme3n1p1"):
        os.symlink(host.sysfs.path("class/block"), host.path(f"{folder}/subsystem"))
    os.symlink(host.path(disk), host.sysfs.path("class/block/nvme3n1"))
    put(host, f"sys/bus/pci/devices/{CARD}/nvme/nvme0/nvme3c0n1/size", "0\n")
    mount(host, "259:34", "/dev/nvme3n1p1", "/srv")
    return "nvme3n1p1 mounted at /srv"


def configured(host: SimulatedHost) -> str:
    put(host, "sys/class/net/eth5/flags", "0x1003\n")
    put(host, "sys/class/net/br0/bridge/x", "")
    os.symlink("../../br0", host.sysfs.path("class/net/eth5/master"))
    os.symlink("x", host.sysfs.path("class/net/eth5/upper_br0"))
    os.symlink("x", host.sysfs.path("class/net/eth5/upper_vlan7"))
    return "network interface eth5 (up, in bridge br0, below vlan7)"


def named_in_bytes(host: SimulatedHost) -> str:
    """The kernel takes any bytes for a name; these are no UTF-8."""
    folder = os.path.realpath(host.sysfs.path("class/net/eth5"))
    odd = os.fsdecode(os.fsencode(folder[:-1]) + b"\xff")
    os.rename(folder, odd)
    Path(odd, "flags").write_text("0x1003\n")
    return "network interface eth? (up)"


def routed(host: SimulatedHost) -> str:
    rest = "0001\t0\t0\t100"
    rows = (f"eth5\t00000000\t010200C0\t{rest}\t00000000", f"eth5\t000200C0\t00000000\t{rest}\t00FFFFFF",
            f"eth6\t000200C0\t00000000\t{rest}\t00FFFFFF")  # fmt: skip
    lines = ("Iface\tDestination\tGateway", *(f"{row}\t0\t0\t0  " for row in rows))
    put(host, "proc/net/route", "\n".join(lines))
    addresses = ("fd000000000000000000000000000002 02 40 00 80     eth5",
                 "fe800000000000000000000000000002 02 40 20 80     eth5")  # fmt: skip
    put(host, "proc/net/if_inet6", "\n".join(addresses))
    return "network interface eth5 (default route, route to 192.0.2.0/24, address fd00::2)"


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


FILES = ("proc/self/mountinfo", "proc/swaps", "proc/net/route", "proc/net/if_inet6",
         "sys/class/net/eth5/flags", "sys/class/block/nvme0n1p1/dev")  # fmt: skip
WORDS = st.sampled_from(
    [
        "eth5",
        "/dev/nvme0n1",
        "-",
        "1",
        "259:1",
        "9" * 40 + ":1",
        "0x1003",
        "000200C0",
        "fd" * 16,
        "20",
        r"\040",
    ]
) | st.text(max_size=6)
LINES = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=3).map("\n".join)


@pytest.mark.long
@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(LINES, st.sampled_from(FILES))
def test_what_cannot_be_understood_is_passed_over(
    host: SimulatedHost, text: str, path: str
) -> None:
    """A timeout is told whatever the kernel's files look like."""
    if not host.sysfs.exists(f"bus/pci/devices/{CARD}"):
        plug_in(host)
    before = host.read_text(path)
    Path(host.path(path)).unlink(missing_ok=True)
    put(host, path, text)
    users = find_users(host, CARD, find_dependents(host, CARD))
    assert all(user.isprintable() for user in users)
    put(host, path, before or "")
