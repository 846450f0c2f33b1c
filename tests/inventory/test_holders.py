"""What the host or a process uses is seen before anything is written, and refused by a rule."""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    PCIAddress,
    PCIHostdev,
    ReattachError,
    Refusal,
    Registry,
    USBHostdev,
    VetoError,
    hookimpl,
    open_connection,
)
from hostdev_core.kernel.processes import Holder, Identity, Search
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.inventory.test_users import (
    CARD,
    HUB,
    configured,
    having_open,
    mounted,
    mounted_by_source,
    mounted_on_top,
    plug_in,
    put,
    stack,
    swapped_to,
)
from tests.sample import NIC

STICK = "1-4"


@pytest.fixture
def machine(host: SimulatedHost) -> SimulatedHost:
    plug_in(host)
    host.add_usb(STICK, id="0951:1666", serial="60A4", kernel_driver="usb-storage")
    return host


def node(host: SimulatedHost, device: str, folder: str, place: str) -> str:
    """Let a device have one more node; its path."""
    bus = "pci" if ":" in device else "usb"
    put(host, f"sys/bus/{bus}/devices/{device}/{folder}/dev", "239:7\n")
    put(host, f"dev/{place}", "")
    return host.path(f"dev/{place}")


def usb_node(host: SimulatedHost, port: str = STICK) -> str:
    folder = f"bus/usb/devices/{port}"
    bus, number = (int(host.sysfs.read(f"{folder}/{name}") or 0) for name in ("busnum", "devnum"))
    return host.path(f"dev/bus/usb/{bus:03}/{number:03}")


def wanted(name: str, *allow: str) -> Domain:
    rules = frozenset(allow)
    if ":" in name:
        return Domain("vm1", [PCIHostdev(address=PCIAddress.parse(name), allow=rules)])
    return Domain("vm1", [USBHostdev(port=name, allow=rules)])


def refusals(error: VetoError) -> list[Refusal]:
    return [each for each in error.refusals if isinstance(each, Refusal)]


def refused(host: SimulatedHost, conn: Connection, name: str) -> list[Refusal]:
    """What plan, prepare and detach refuse alike, with nothing changed."""
    before, known = host.snapshot(), host.ledger.records()
    host.clear_writes()
    calls: list[Callable[[], object]] = [
        lambda: conn.plan(wanted(name)),
        lambda: conn.prepare_hostdevs(wanted(name)),
        *([lambda: conn.detach_device(name)] if ":" in name else []),
    ]
    answers: list[list[Refusal]] = []
    for call in calls:
        with pytest.raises(VetoError) as raised:
            call()
        answers.append(refusals(raised.value))
    assert all(answer == answers[0] for answer in answers)
    assert host.snapshot() == before
    assert host.ledger.records() == known
    assert [path for path, _ in host.writes() if path != "modprobe"] == []
    return answers[0]


NODES = {
    "a DPDK program on uio": (NIC, "uio/uio0", "uio0"),
    "a serial port": (NIC, "tty/ttyS4", "ttyS4"),
    "an NVMe controller's own node": (NIC, "nvme/nvme7", "nvme7"),
    "a camera": (STICK, f"{STICK}:1.0/video4linux/video0", "video0"),
    "an input device": (STICK, f"{STICK}:1.0/0003:046D:C077.0001/input/input3/event3", "input/e"),
    "a security key": (STICK, f"{STICK}:1.0/0003:1050:0407.0001/hidraw/hidraw0", "hidraw0"),
    "an adapter": (STICK, f"{STICK}:1.0/ttyUSB0/tty/ttyUSB0", "ttyUSB0"),
}


@pytest.mark.parametrize("kind", [*NODES])
def test_a_process_has_a_node_of_it_open(
    machine: SimulatedHost, conn: Connection, kind: str
) -> None:
    device, folder, place = NODES[kind]
    path = node(machine, device, folder, place)
    if place.startswith("input/"):  # the name that sysfs has is the last part
        path = node(machine, device, folder, "event3")
    with having_open(path) as pid:
        (refusal,) = refused(machine, conn, device)
        assert (refusal.rule, refusal.device) == ("in-use", device)
        (evidence,) = refusal.evidence
        assert evidence.endswith(f" (pid {pid}, {path})")
        plan = conn.plan(wanted(device, "in-use"))
        assert [f"pid {pid}," in warning for warning in plan.warnings if "passed" in warning] == [
            True
        ]
        conn.prepare_hostdevs(wanted(device, "in-use"))
    conn.reattach_hostdevs("vm1")
    conn.plan(wanted(device))  # nobody has it any more


@pytest.mark.parametrize("place", ["dri/renderD128", "snd/pcmC0D0p", "nvme0n1p2", "usb"])
def test_a_compositor_a_sound_server_a_database(
    machine: SimulatedHost, conn: Connection, place: str
) -> None:
    card = HUB if place == "usb" else CARD
    path = usb_node(machine, "1-1") if place == "usb" else machine.path(f"dev/{place}")
    with having_open(path) as pid, having_open(machine.path("dev/vfio/vfio")):
        (refusal,) = refused(machine, conn, card)
    assert refusal.rule == "in-use"
    assert [f"(pid {pid}, {path})" in line for line in refusal.evidence] == [True]


def test_a_gpu_whose_node_sysfs_does_not_know(machine: SimulatedHost, conn: Connection) -> None:
    folder = f"proc/driver/nvidia/gpus/{CARD}"
    put(machine, f"{folder}/information", "Model: \t\t X\nDevice Minor: \t 3\nGPU Excluded:\t No\n")
    put(machine, "dev/nvidia3", "")
    put(machine, "dev/nvidia4", "")
    with having_open(machine.path("dev/nvidia4")):
        conn.plan(wanted(CARD))
    with having_open(machine.path("dev/nvidia3")) as pid:
        (refusal,) = refused(machine, conn, CARD)
    assert [f"pid {pid}," in line for line in refusal.evidence] == [True]


def test_all_devices_of_a_request_leave_together(machine: SimulatedHost, conn: Connection) -> None:
    uio = node(machine, NIC, "uio/uio0", "uio0")
    with having_open(uio) as one, having_open(machine.path("dev/dri/card0")) as two:
        with pytest.raises(VetoError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC, CARD, "0000:02:00.0"]))
        found = {each.device: each.evidence for each in refusals(raised.value)}
        assert found.keys() == {NIC, CARD}
        assert f"pid {one}," in found[NIC][0]
        assert f"pid {two}," in found[CARD][0]
        answer = run("plan", "vm1", NIC, host=machine)
        assert answer.returncode != 0
        assert f"(pid {one}, {uio})" in answer.stderr
        assert answer.stderr.endswith("[in-use]\n  to pass it: --allow in-use\n")
        passed = run("plan", "vm1", NIC, "--allow", "in-use", host=machine)
        assert f"(pid {one}, {uio})" in passed.stdout + passed.stderr
        assert passed.returncode == 0


@pytest.mark.parametrize(
    "use", [mounted, mounted_by_source, swapped_to, mounted_on_top, configured]
)
def test_what_the_kernel_has_made_of_it(
    machine: SimulatedHost, conn: Connection, use: Callable[[SimulatedHost], str]
) -> None:
    """File systems, swap, volumes, a bridge: without any plugin."""
    words = use(machine)
    (refusal,) = refused(machine, conn, CARD)
    assert refusal.rule == "in-use"
    if use is configured:
        assert refusal.evidence == (
            "network interface eth5 is in bridge br0",
            "network interface eth5 is below vlan7",
        )
    else:
        assert {*refusal.evidence} == {*words.split(", ")}
    conn.prepare_hostdevs(wanted(CARD, "in-use"))
    conn.reattach_hostdevs("vm1")


def test_an_interface_that_is_up_is_no_use(machine: SimulatedHost, conn: Connection) -> None:
    put(machine, "sys/class/net/eth5/flags", "0x1003\n")
    put(
        machine,
        "proc/net/route",
        "Iface\tDestination\tGateway\neth5\t00000000\t010200C0\t0001\t0\t0\t100\t00000000\t0\t0\t0\n",
    )
    assert not any("passed" in warning for warning in conn.plan(wanted(CARD)).warnings)


class Says:
    """A plugin that has seen more of a disk than hostdev itself."""

    def __init__(self, evidence: str) -> None:
        self._evidence = evidence

    @hookimpl
    def hostdev_check(self, devices: Collection[object]) -> list[Refusal]:
        del devices
        return [
            Refusal("root-filesystem", CARD, "the root file system is on it", (self._evidence,))
        ]


@pytest.mark.parametrize(
    ("evidence", "left"),
    [
        (f"/ is on dm-0, on md0, on nvme0n1p1, on nvme0n1, on {CARD}", []),
        (f"/ is on dm-0, on {CARD}", ["md0 on nvme0n1p1"]),
    ],
)
def test_what_a_plugin_has_named_is_not_said_twice(
    machine: SimulatedHost, registry: Registry, evidence: str, left: list[str]
) -> None:
    """Nor asked for again, when the plugin's rule is passed."""
    mounted_on_top(machine)
    registry.register(Says(evidence), name="says")
    with open_connection("qemu:///system", host=machine, registry=registry) as conn:
        found = refused(machine, conn, CARD)
        assert [line for each in found if each.rule == "in-use" for line in each.evidence] == left
        assert "root-filesystem" in [each.rule for each in found]
        conn.plan(wanted(CARD, *{each.rule for each in found}))


def test_an_idle_volume_is_named(machine: SimulatedHost, conn: Connection) -> None:
    stack(machine, "dm-7", "nvme0n1p2")
    (refusal,) = refused(machine, conn, CARD)
    assert refusal.evidence == ("dm-7 on nvme0n1p2",)


@pytest.mark.parametrize("device", [CARD, NIC, STICK])
def test_its_interface_is_in_another_namespace(
    machine: SimulatedHost, conn: Connection, device: str
) -> None:
    """The kernel keeps the directory as long as it has an interface, wherever that is."""
    folders = {
        CARD: f"bus/pci/devices/{CARD}/net",
        NIC: f"bus/pci/devices/{NIC}/virtio0/net",  # as of a virtio card
        STICK: f"bus/usb/devices/{STICK}/{STICK}:1.0/net",
    }
    folder = Path(machine.sysfs.path(folders[device]))
    if device == CARD:
        known = Path(machine.sysfs.path("class/net/eth5"))
        for each in sorted(known.resolve().rglob("*"), reverse=True):
            each.unlink()
        known.resolve().rmdir()
        known.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (refusal,) = refused(machine, conn, device)
    assert (refusal.rule, refusal.device) == ("other-namespace", device)
    conn.plan(wanted(device, "other-namespace"))


def test_one_of_two_interfaces_is_in_another_namespace(
    machine: SimulatedHost, registry: Registry
) -> None:
    """It is not shown, and the directory has a link for it all the same."""
    (Path(machine.sysfs.path(f"bus/pci/devices/{CARD}/net")) / "eth9").mkdir()
    with open_connection("qemu:///system", host=Tagged(machine.root), registry=registry) as conn:
        (refusal,) = refused(machine, conn, CARD)
    assert refusal.rule == "other-namespace"


class Tagged(SimulatedHost):
    """Where `eth9` is shown in another network namespace only."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        folders = self.sysfs.folders
        self.sysfs.folders = lambda path: [  # type: ignore[method-assign]
            name for name in folders(path) if name != "eth9"
        ]


# USB: a guest has claimed an interface; a program has the node open.


@pytest.fixture
def claimed(machine: SimulatedHost) -> Iterator[str]:
    with machine.hold(STICK):
        yield STICK


def test_a_claimed_interface_is_held(
    machine: SimulatedHost, conn: Connection, claimed: str
) -> None:
    """As a QEMU outside the ledger has it: no rule passes that."""
    before = machine.snapshot()
    with having_open(usb_node(machine)) as pid:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(
                DeviceInUseError, match=f"{claimed} is held by .*pid {pid},"
            ) as raised:
                call(wanted(claimed, "in-use", "held"))
            assert raised.value.rule == "held"
            assert f"interface {claimed}:1.0 is claimed" in raised.value.evidence
    with pytest.raises(DeviceInUseError, match="a process that cannot be seen from here"):
        conn.plan(wanted(claimed))
    assert machine.snapshot() == before
    assert machine.ledger.records() == []


@pytest.mark.parametrize("claims", [True, False])
def test_a_lent_stick_stays_lent_while_somebody_has_it(
    machine: SimulatedHost, conn: Connection, registry: Registry, claims: bool
) -> None:
    """A killed manager's guest runs on: the stick is not the next one's. Others go home."""
    before = machine.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [STICK, "1-1"]))
    (was,) = (each for each in machine.ledger.records() if each.address == STICK)

    def check(evidence: str) -> None:
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert (error.rule, error.device) == ("held", STICK)
        assert any(evidence in line for line in error.evidence)
        assert machine.ledger.records() == [was]

    if claims:
        with machine.hold(STICK):
            check("is claimed")
    else:
        with having_open(usb_node(machine)) as pid:
            check(f"pid {pid},")
            with (
                open_connection("qemu:///system", host=machine, registry=registry) as other,
                pytest.raises(DeviceInUseError, match="vm1"),
            ):
                other.prepare_hostdevs(Domain("vm2", [STICK]))
    assert conn.reattach_hostdevs("vm1") == (STICK,)
    assert machine.snapshot() == before
    assert machine.ledger.records() == []


def test_another_stick_in_its_place_keeps_nobody(machine: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [STICK]))
    machine.unplug(STICK)
    machine.add_usb(STICK, id="0781:5581")
    with having_open(usb_node(machine)):
        assert conn.reattach_hostdevs("vm1") == (STICK,)
    assert machine.ledger.records() == []


def test_the_same_stick_under_a_new_number_is_kept(
    machine: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [STICK]))
    machine.unplug(STICK)
    machine.add_usb(STICK, id="0951:1666", serial="60A4", device=77)
    with machine.hold(STICK), pytest.raises(ReattachError):
        conn.reattach_hostdevs("vm1")
    assert conn.reattach_hostdevs("vm1") == (STICK,)


# VFIO's own node, by somebody outside the ledger.


@pytest.fixture
def on_vfio(host: SimulatedHost) -> str:
    """A card that was found on vfio-pci; its VFIO node."""
    host.modules.load("vfio-pci")
    host.add_pci(CARD, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=5)
    (name,) = host.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev")
    put(host, f"dev/vfio/devices/{name}", "")
    return host.path(f"dev/vfio/devices/{name}")


def all_calls(conn: Connection) -> dict[str, Callable[[], object]]:
    return {
        "plan": lambda: conn.plan(wanted(CARD, "in-use")),
        "prepare": lambda: conn.prepare_hostdevs(wanted(CARD, "in-use")),
        "detach": lambda: conn.detach_device(CARD, allow=["in-use"]),
        "reset": lambda: conn.reset_device(CARD, allow=["in-use"]),
    }


@pytest.mark.parametrize("what", ["plan", "prepare", "detach", "reset"])
def test_who_has_the_vfio_node_is_named(
    host: SimulatedHost, conn: Connection, on_vfio: str, what: str
) -> None:
    before = host.snapshot()
    with having_open(on_vfio) as pid:
        with pytest.raises(DeviceInUseError, match=f"{CARD} is held by .*pid {pid},") as raised:
            all_calls(conn)[what]()
        assert raised.value.rule == "held"
        assert host.snapshot() == before
        assert host.ledger.records() == []
    all_calls(conn)[what]()


class Unsure(SimulatedHost):
    """A host whose processes cannot all be looked at in time."""

    why = "the search of /proc has not ended within 30 s"

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        del nodes, seconds
        return Search(cut=self.why)


@pytest.mark.parametrize("what", ["plan", "prepare", "detach", "reset"])
def test_not_found_in_time_is_not_nobody(
    host: SimulatedHost, registry: Registry, on_vfio: str, what: str
) -> None:
    assert os.path.exists(on_vfio)
    before = host.snapshot()
    with (
        open_connection("qemu:///system", host=Unsure(host.root), registry=registry) as conn,
        pytest.raises(DeviceInUseError, match="has not ended within") as raised,
    ):
        all_calls(conn)[what]()
    assert raised.value.rule == "held"
    assert raised.value.evidence == (Unsure.why,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("device", [CARD, STICK])
def test_nor_is_it_on_the_way_home(
    machine: SimulatedHost, conn: Connection, registry: Registry, device: str
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [device]))
    for name in machine.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev"):
        put(machine, f"dev/vfio/devices/{name}", "")
    lent, records = machine.snapshot(), machine.ledger.records()
    with (
        open_connection("qemu:///system", host=Unsure(machine.root), registry=registry) as unsure,
        pytest.raises(ReattachError) as raised,
    ):
        unsure.reattach_hostdevs("vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, DeviceInUseError)
    assert error.evidence == (Unsure.why,)
    assert machine.snapshot() == lent
    assert machine.ledger.records() == records
    assert conn.reattach_hostdevs("vm1") == (device,)


class Hidden(SimulatedHost):
    """A host of which not all processes can be seen, as from a container."""

    why = "processes outside this PID namespace are not seen"

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        return super().search_openers(nodes, seconds)._replace(hidden=self.why)


def test_where_not_all_can_be_seen_the_kernel_decides(
    machine: SimulatedHost, registry: Registry
) -> None:
    """A group that opens is nobody's. Of a USB device there is no such word, and it stays lent."""
    before = machine.snapshot()
    host = Hidden(machine.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        assert any(Hidden.why in warning for warning in conn.plan(wanted(CARD)).warnings)
        conn.prepare_hostdevs(Domain("vm1", [CARD, STICK]))
        for name in machine.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev"):
            put(machine, f"dev/vfio/devices/{name}", "")
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert (error.device, error.evidence) == (STICK, (Hidden.why,))
        assert [record.address for record in machine.ledger.records()] == [STICK]
        assert machine.snapshot() == before


def test_without_a_group_that_opens_nobody_can_be_sure(
    host: SimulatedHost, registry: Registry, on_vfio: str
) -> None:
    """As with a kernel that has VFIO's devices and no groups."""
    assert os.path.exists(on_vfio)
    os.unlink(host.path("dev/vfio/5"))
    os.unlink(host.path("sys/class/vfio/5"))
    hidden = Hidden(host.root)
    with (
        open_connection("qemu:///system", host=hidden, registry=registry) as conn,
        pytest.raises(DeviceInUseError, match="are not seen") as raised,
    ):
        conn.plan(wanted(CARD))
    assert (raised.value.rule, raised.value.evidence) == ("held", (Hidden.why,))


class Glance(SimulatedHost):
    """Somebody has each node open at the first look, and nobody at the next."""

    looks = 0

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        del seconds
        self.looks += 1
        udev = Holder(7, "(udev-worker)", "/dev/nvme0n1")
        return Search(tuple((known, udev) for known in nodes) if self.looks % 2 else ())


def test_who_looks_for_a_moment_is_no_user(machine: SimulatedHost, registry: Registry) -> None:
    machine.modules.load("vfio-pci")  # it is decided anew after a load
    host = Glance(machine.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [CARD, STICK]))
        assert host.looks == 2  # for all devices of the request together
        conn.reattach_hostdevs("vm1")
    assert machine.ledger.records() == []
