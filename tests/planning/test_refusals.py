"""A refusal says what the device is: a hub, a device that does not answer, an unknown header."""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    DeviceNotFoundError,
    Domain,
    InvalidAddressError,
    NotAssignableError,
    USBHostdev,
    open_connection,
)
from hostdev_core.testing import SimulatedHost
from tests.helpers.cli_command import run

GPU = "0000:01:00.0"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_usb("1-1", id="05e3:0608", hub=True)
    host.add_usb("1-1.2", id="046d:c077", product="Mouse")
    host.add_usb("1-1.4", id="05e3:0612", hub=True)
    host.add_usb("1-1.4.3", id="18d1:4ee7")
    host.add_usb("1-11", id="0781:5567")
    host.add_usb("2-3", id="05e3:0610", hub=True)
    return host


def refusal(host: SimulatedHost, *hostdevs: str | USBHostdev) -> NotAssignableError:
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(NotAssignableError) as caught:
                call(Domain("vm1", hostdevs))
    assert host.snapshot() == before
    assert host.ledger.records() == []
    return caught.value


@pytest.mark.parametrize("kernel_driver", [None, "nouveau", "vfio-pci"])
def test_a_device_that_reads_all_ones_does_not_answer(
    tmp_path: Path, kernel_driver: str | None
) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(
        GPU, id="10de:1b06", class_="030000", kernel_driver=kernel_driver, header_type=0x7F, iommu_group=1
    )  # fmt: skip
    Path(host.path(f"sys/bus/pci/devices/{GPU}/power_state")).write_text("D3cold\n")
    error = refusal(host, GPU)
    assert error.rule == "no-answer"
    assert "does not answer" in str(error)
    assert "bridge" not in str(error)
    assert f"/sys/bus/pci/devices/{GPU}/remove" in str(error)
    assert error.evidence == ("power state D3cold", f"kernel driver {kernel_driver or 'none'}")


def test_all_ones_with_the_multi_function_bit(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(GPU, class_="030000", iommu_group=1)
    Path(host.path(f"sys/bus/pci/devices/{GPU}/config")).write_bytes(b"\xff" * 64)
    assert refusal(host, GPU).rule == "no-answer"


@pytest.mark.parametrize(("header", "rule"), [(1, "bridge"), (2, "bridge"), (3, "header-type")])
def test_other_headers(tmp_path: Path, header: int, rule: str) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(GPU, class_="068000", iommu_group=1, header_type=header)
    error = refusal(host, GPU)
    assert error.rule == rule
    assert f"header type {header}" in str(error)


@pytest.mark.parametrize(
    "wanted",
    ["1-1", "001:002", "05e3:0608", USBHostdev(port="1-1", vendor="05e3"), USBHostdev(bus=1, device=2)],
)  # fmt: skip
def test_a_hub_is_no_device_that_is_not_there(
    host: SimulatedHost, wanted: str | USBHostdev
) -> None:
    error = refusal(host, wanted)
    assert error.rule == "hub"
    assert "hubs cannot be lent" in str(error)
    assert error.evidence == ("1-1.2 (046d:c077 Mouse)", "1-1.4.3 (18d1:4ee7)")


def test_a_hub_is_still_no_device_that_is_found(host: SimulatedHost) -> None:
    """Whoever tells a missing device from others by its error goes on to do so, in a worker, too."""
    conn = open_connection("qemu:///system", host=host, worker=True)
    with conn, pytest.raises(DeviceNotFoundError) as caught:
        conn.prepare_hostdevs(Domain("vm1", ["1-1"]))
    assert caught.value.rule == "hub"
    assert caught.value.device == "1-1"


def test_show_and_reattach_know_a_hub(host: SimulatedHost) -> None:
    for wanted in ("1-1", "05e3:0608"):
        for command in (("show", wanted), ("reattach", "vm1", wanted)):
            done = run(*command, host=host)
            said = done.stdout + done.stderr
            assert f"{wanted} is a USB hub" in said
            assert "name what is plugged into it: 1-1.2 (046d:c077 Mouse); 1-1.4.3" in said
            assert "no device" not in said
            assert "no such device" not in said
    assert run("show", "1-1", host=host).returncode == 1
    assert "there is no device 1-3" in run("show", "1-3", host=host).stderr


def test_an_empty_hub_and_the_root_hubs(host: SimulatedHost) -> None:
    assert "nothing is plugged into it" in str(refusal(host, "2-3"))
    error = refusal(host, "001:001")
    assert "usb1" in str(error)
    assert {row.partition(" ")[0] for row in error.evidence} == {"1-1.2", "1-1.4.3", "1-11"}


@pytest.mark.parametrize(
    "wanted",
    ["1-2", "1-1.1", "05e3:0609", USBHostdev(port="1-1", serial="x"), USBHostdev(serial="x")],
)
def test_what_is_not_there_is_not_there(host: SimulatedHost, wanted: str | USBHostdev) -> None:
    conn = open_connection("qemu:///system", host=host)
    with conn, pytest.raises(DeviceNotFoundError):
        conn.plan(Domain("vm1", [wanted]))


def test_a_hub_in_the_place_of_an_optional_device_is_a_missing_one(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        hostdev = USBHostdev(port="1-1", startup_policy="optional")
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [hostdev]))
    assert assignment.missing


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("usb1", "root hub of USB bus 1.*like 1-1"),
        ("usb12", "root hub of USB bus 12"),
        ("1-1.2:1.0", "interface of USB device 1-1.2.*name 1-1.2"),
        ("usb0", "names no device"),
        ("1-1:x", "names no device"),
    ],
)
def test_names_of_sysfs_that_are_no_devices(name: str, said: str) -> None:
    with pytest.raises(InvalidAddressError, match=said):
        Domain("vm1", [name])
    with pytest.raises(InvalidAddressError):
        USBHostdev(port=name)


def test_connections_of_xen_say_it_too(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_usb("1-1", id="05e3:0608", hub=True)
    conn: Connection = open_connection("xen:///system", host=host)
    with conn, pytest.raises(NotAssignableError, match="hubs cannot be lent"):
        conn.plan(Domain("vm1", ["1-1"]))
