"""What the host or a process uses is seen before anything is written, and refused by a rule."""

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    Refusal,
    Registry,
    VetoError,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers import in_use
from tests.helpers.cli_command import run
from tests.helpers.in_use import STICK, Tagged, node, refusals, refused, usb_node, wanted
from tests.helpers.users import (
    CARD,
    HUB,
    configured,
    having_open,
    mounted,
    mounted_by_source,
    mounted_on_top,
    put,
    stack,
    swapped_to,
)
from tests.sample import NIC

machine = in_use.machine


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
