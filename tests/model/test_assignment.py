"""The words for the hypervisor: of a whole domain, and as its devices were asked for."""

import json
import shlex
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    NotAssignableError,
    PCIHostdev,
    USBHostdev,
    open_connection,
)
from hostdev_core.testing import SimulatedHost, make_sample
from hostdev_libxl import LibxlDriver
from hostdev_qemu import QemuDriver
from tests.helpers.cli_command import QEMU, ask, run
from tests.sample import registered

NICS = ("0000:01:00.0", "0000:02:00.0")
XEN = ("-c", "xen:///system")


@pytest.fixture
def dom0(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    for nic in NICS:
        host.add_pci(nic, kernel_driver="e1000e")
    host.add_usb("1-2", device=5)
    host.add_usb("1-3.1", device=7)
    return host


@pytest.fixture
def sticks(tmp_path: Path) -> SimulatedHost:
    """A stick, a mouse and a second mouse that differs by its serial number."""
    host = SimulatedHost.create(tmp_path / "sticks")
    host.add_usb("1-1.2", id="1a6e:089a", device=9)
    host.add_usb("3-4", id="046d:c077", device=12, serial="left")
    host.add_usb("3-5.1.6", id="046d:c077", device=13, serial="right")
    return host


def usb_words(conn: Connection, hostdev: USBHostdev | str) -> str:
    (assignment,) = conn.prepare_hostdevs(Domain("vm1", [hostdev]))
    assert conn.arguments([assignment]) == assignment.arguments
    conn.reattach_hostdevs("vm1")
    option, value = assignment.arguments
    assert option == "-device"
    return value


def test_xl_gets_one_list_for_each_kind_of_device(dom0: SimulatedHost) -> None:
    """Of two lines `pci=[...]` xl takes the last: the guest would get one of two devices."""
    with open_connection("xen:///system", host=dom0) as conn:
        assignments = conn.prepare_hostdevs(Domain("vm1", ["1-3.1", NICS[1], "1-2", NICS[0]]))
        assert conn.arguments(assignments) == (
            f"pci=['{NICS[1]}', '{NICS[0]}']",
            "usbdev=['hostbus=1,hostaddr=7', 'hostbus=1,hostaddr=5']",
        )
        assert conn.arguments(assignments[1:2]) == assignments[1].arguments
        assert conn.arguments([]) == ()


def test_a_later_prepare_has_the_words_for_what_it_lent(dom0: SimulatedHost) -> None:
    with open_connection("xen:///system", host=dom0) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NICS[0]]))
        more = conn.prepare_hostdevs(Domain("vm1", [NICS[1]]))
        assert conn.arguments(more) == (f"pci=['{NICS[1]}']",)


def test_a_missing_device_has_no_words(dom0: SimulatedHost) -> None:
    gone = USBHostdev(port="1-7", startup_policy="optional")
    with open_connection("xen:///system", host=dom0) as conn:
        assignments = conn.prepare_hostdevs(Domain("vm1", [gone, NICS[0]]))
        assert conn.arguments(assignments) == (f"pci=['{NICS[0]}']",)
        assert conn.arguments(assignments[:1]) == ()


def test_a_subclass_adds_xl_options(dom0: SimulatedHost) -> None:
    class Permissive(LibxlDriver):
        name = "permissive"
        uri_schemes = ("permissive",)

        def spec(self, device: object) -> str:
            return super().spec(device) + ",permissive=1"  # type: ignore[arg-type]

    registry = registered(Permissive())
    with open_connection("permissive:///system", host=dom0, registry=registry) as conn:
        assignments = conn.prepare_hostdevs(Domain("vm1", NICS))
        both = f"pci=['{NICS[0]},permissive=1', '{NICS[1]},permissive=1']"
        assert conn.arguments(assignments) == (both,)


def test_the_command_prints_the_words_of_the_domain(dom0: SimulatedHost, tmp_path: Path) -> None:
    done = run("prepare", "vm1", *NICS, "1-2", *XEN, host=dom0)
    (line,) = done.stdout.splitlines()
    words = [f"pci=['{NICS[0]}', '{NICS[1]}']", "usbdev=['hostbus=1,hostaddr=5']"]
    assert shlex.split(line) == words
    answer = ask("prepare", "vm1", *NICS, "1-2", "--same-owner", *XEN, host=dom0)
    assert answer["arguments"] == words
    assert [a["arguments"] for a in answer["assignments"]] == [
        [f"pci=['{NICS[0]}']"],
        [f"pci=['{NICS[1]}']"],
        [words[1]],
    ]
    done = run("prepare", "vm1", *NICS, *QEMU, host=make_sample(tmp_path / "bare"))
    assert done.stdout.splitlines() == [f"-device vfio-pci,host={nic}" for nic in NICS]


def test_a_qemu_domain_has_the_words_of_each_device(tmp_path: Path) -> None:
    host = make_sample(tmp_path / "host")
    answer = json.loads(run("prepare", "vm1", *NICS, "--json", *QEMU, host=host).stdout)
    assert answer["arguments"] == [
        word for nic in NICS for word in ("-device", f"vfio-pci,host={nic}")
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("1-1.2", "hostbus=1,hostport=1.2"),
        ("1a6e:089a", "vendorid=0x1a6e,productid=0x089a"),
        ("001:009", "hostbus=1,hostaddr=9"),
        (USBHostdev(port="3-5.1.6"), "hostbus=3,hostport=5.1.6"),
        (USBHostdev(serial="right"), "hostbus=3,hostport=5.1.6"),
        (
            USBHostdev(vendor="046D", product="C077", serial="left"),
            "hostbus=3,hostport=4,vendorid=0x046d,productid=0xc077",
        ),
        (
            USBHostdev(port="1-1.2", vendor="1a6e"),
            "hostbus=1,hostport=1.2,vendorid=0x1a6e,productid=0x089a",
        ),
        (
            USBHostdev(bus=1, product="089a"),
            "hostbus=1,vendorid=0x1a6e,productid=0x089a",
        ),
        (
            USBHostdev(bus=1, device=9, vendor="1a6e", product="089a"),
            "hostbus=1,hostaddr=9,vendorid=0x1a6e,productid=0x089a",
        ),
        (USBHostdev(bus=1), "hostbus=1,hostaddr=9"),
        (USBHostdev(port="1-1.2", bus=1, device=9), "hostbus=1,hostport=1.2"),
    ],
)
def test_qemu_follows_what_was_asked_for(
    sticks: SimulatedHost, wanted: USBHostdev | str, words: str
) -> None:
    with open_connection("qemu:///system", host=sticks) as conn:
        assert usb_words(conn, wanted) == f"usb-host,{words}"


def test_ids_of_two_devices_have_no_words(sticks: SimulatedHost) -> None:
    conn = open_connection("qemu:///system", host=sticks)
    with conn, pytest.raises(NotAssignableError, match=r"3-4 .*3-5\.1\.6"):
        usb_words(conn, "046d:c077")


def test_a_subclass_that_has_arguments_only_is_asked_for_usb_too(sticks: SimulatedHost) -> None:
    class Named(QemuDriver):
        name = "named"
        uri_schemes = ("named",)

        def arguments(self, device: object, node: str | None) -> tuple[str, str]:
            option, value = super().arguments(device, node)  # type: ignore[arg-type]
            return option, f"{value},id=x"

    with open_connection("named:///system", host=sticks, registry=registered(Named())) as conn:
        assert usb_words(conn, "1-1.2") == "usb-host,hostbus=1,hostport=1.2,id=x"


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("ffff:01:00.0", "host=ffff:01:00.0"),
        ("10000:01:00.0", "sysfsdev=/sys/bus/pci/devices/10000:01:00.0"),
        ("10000000:e1:1f.7", "sysfsdev=/sys/bus/pci/devices/10000000:e1:1f.7"),
    ],
)
def test_a_pci_domain_that_host_does_not_take(tmp_path: Path, address: str, word: str) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(address, kernel_driver="e1000e", iommu_group=1)
    with open_connection("qemu:///system", host=host) as conn:
        (card,) = conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=address)]))
        assert card.arguments == ("-device", f"vfio-pci,{word}")
