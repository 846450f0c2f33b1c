"""What a device is used for: the same word, with its evidence, in `list`, `show` and `status`."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from hostdev_core.facts.use import CODES
from hostdev_core.simulated import SimulatedHost
from tests.helpers import users
from tests.helpers.cli_command import QEMU, ask, run, start
from tests.helpers.in_use import machine as machine
from tests.helpers.users import CARD, having_open, put
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

STUBBED = "0000:08:00.0"
CHEAP = ["network interface eth5", "disk nvme0n1", "DRM node card0", "DRM node renderD128"]


def use(host: SimulatedHost, name: str, *words: str) -> dict[str, Any]:
    """The use of one device by a command, which must agree with what the command prints."""
    found: list[dict[str, Any]] = ask(*(words or ("show", name)), host=host)["devices"]
    (device,) = (each for each in found if each["address"] == name)
    assert device["use"]["code"] in CODES
    assert device["use"]["text"].startswith(device["use"]["code"])
    return device["use"]


def test_what_the_host_has_of_a_device_counts_as_used_until_it_is_looked_for(
    machine: SimulatedHost,
) -> None:
    listed = use(machine, CARD, "list")
    assert listed == {"code": "host", "text": "host", "evidence": CHEAP, "whole": False}
    for words in (("list", "--all-facts"), ("show", CARD)):
        looked = use(machine, CARD, *words)
        assert looked == {"code": "available", "text": "available", "evidence": [], "whole": True}


# What is made up, and what is told first of it.
MADE_UP: dict[str, tuple[Callable[[SimulatedHost], object], str]] = {
    "mounted": (users.mounted, "/srv/my files on nvme0n1p1"),
    "btrfs": (users.mounted_by_source, "/srv on nvme0n1p2"),
    "swap": (users.swapped_to, "swap on nvme0n1p2"),
    "root on a volume": (users.mounted_on_top, "/ on dm-0"),
    "two ports": (users.mounted_from_two_ports, "/srv on nvme3n1p1"),
    "bridge": (users.configured, "eth5 in bridge br0"),
    "route": (users.routed, "default route on eth5"),
}


@pytest.mark.parametrize("what", MADE_UP)
def test_a_use_by_the_host_is_named(machine: SimulatedHost, what: str) -> None:
    make, first = MADE_UP[what]
    make(machine)
    found = use(machine, CARD)
    assert (found["code"], found["evidence"][0], found["whole"]) == ("host", first, True)
    assert found["text"].startswith(f"host: {first}")
    assert use(machine, CARD, "list", "--all-facts") == found
    (line,) = (
        line for line in run("list", "--all-facts", host=machine).stdout.splitlines()
        if line.startswith(f"{CARD}: ")
    )  # fmt: skip
    assert line == f"{CARD}: host: {'; '.join(found['evidence'])}"


def test_all_uses_of_an_interface_are_evidence(machine: SimulatedHost) -> None:
    users.configured(machine)
    users.routed(machine)
    assert use(machine, CARD)["evidence"] == [
        "default route on eth5", "eth5 in bridge br0", "eth5 below vlan7", "eth5 up",
        "route to 192.0.2.0/24 on eth5", "address fd00::2 on eth5",
    ]  # fmt: skip


def test_processes_that_hold_a_device_are_named(machine: SimulatedHost) -> None:
    with having_open(machine.path("dev/dri/card0"), machine.path("dev/snd/pcmC0D0p")) as pid:
        found = use(machine, CARD)
    assert found["code"] == "host"
    command, sound = found["evidence"][0], machine.path("dev/snd/pcmC0D0p")
    assert command.startswith("card0 (")
    assert command.endswith(f", pid {pid})")
    assert found["evidence"][1].endswith(f"(pid {pid}, {sound})")


@pytest.mark.parametrize("by", ["driverctl", "somebody"])
def test_an_override_of_others_is_named(host: SimulatedHost, by: str) -> None:
    host.add_pci(STUBBED, kernel_driver="e1000e", driver_override="e1000e", iommu_group=8)
    if by == "driverctl":
        put(host, f"etc/driverctl.d/pci-{STUBBED}", "e1000e\n")
    words = {
        "driverctl": "overridden by driverctl (e1000e)",
        "somebody": "driver_override is set (e1000e)",
    }
    assert use(host, STUBBED)["text"] == f"host: {words[by]}"
    assert use(host, STUBBED, "list")["code"] == "available"  # it may hang, and is not read


def test_a_stub_without_a_record_is_foreign_and_names_its_holder(host: SimulatedHost) -> None:
    host.add_pci(STUBBED, kernel_driver="vfio-pci", iommu_group=8)
    why = "on vfio-pci, and no record says why"
    assert use(host, STUBBED, "list") == {
        "code": "foreign", "text": "foreign: on vfio-pci", "evidence": [why], "whole": False,
    }  # fmt: skip
    assert use(host, STUBBED)["code"] == "foreign"
    with having_open(host.path("dev/vfio/8")) as pid:
        found = use(host, STUBBED)
    assert found["code"] == "foreign"
    assert found["text"].startswith("foreign: held by ")
    assert found["evidence"][0].endswith(f"(pid {pid}, {host.path('dev/vfio/8')})")
    assert found["evidence"][1] == why


def test_a_stick_that_a_guest_of_others_has_is_foreign(host: SimulatedHost) -> None:
    host.add_usb("1-1")
    assert use(host, "1-1")["code"] == "available"
    with host.hold("1-1"):
        assert use(host, "1-1")["code"] == "foreign"


def test_what_others_need_it_for_is_the_hosts(host: SimulatedHost) -> None:
    host.add_pci("0000:00:1c.0", class_="060400", header_type=1, kernel_driver="pcieport")
    host.add_usb("1-1")
    assert use(host, "0000:00:1c.0", "list")["evidence"] == ["other devices are behind it"]
    for words in ("list",), ("show", "00:14.0"):
        found = use(host, "0000:00:14.0", *words)
        assert (found["code"], found["evidence"]) == ("host", ["USB device 1-1"])


def _status(host: SimulatedHost) -> dict[str, Any]:
    (record,) = ask("status", host=host)["records"]
    found: dict[str, Any] = record["use"]
    return found


def test_a_lent_device_that_was_rebound_says_so_everywhere(host: SimulatedHost) -> None:
    run(*QEMU, "prepare", "vm1", NIC, host=host)
    assert use(host, NIC, "list")["text"] == _status(host)["text"] == "lent to vm1 (qemu)"
    driver = "bus/pci/drivers/vfio-pci/unbind"
    host.sysfs.write(driver, NIC)
    told = "on no driver, lent on vfio-pci"
    for found in (use(host, NIC, "list"), use(host, NIC), _status(host)):
        assert (found["code"], found["text"]) == ("rebound", "rebound, for vm1 (qemu)")
        assert found["evidence"] == [told]
    (device,) = ask("show", NIC, host=host)["devices"]
    assert device["state"] == "lent"
    assert f"{NIC}: rebound, for vm1 (qemu): {told}" in run("list", host=host).stdout
    assert told in run("show", NIC, host=host).stdout


@pytest.mark.parametrize("what", ["gone", "replaced"])
def test_a_lent_device_that_is_not_there_says_so_everywhere(host: SimulatedHost, what: str) -> None:
    run(*QEMU, "prepare", "vm1", NIC, host=host)
    host.unplug(NIC)
    if what == "replaced":
        host.add_pci(NIC, kernel_driver="igb", iommu_group=1)
    found = [ask(*words, host=host)["absent"][0]["use"] for words in (("list",), ("show", NIC))]
    for each in (*found, _status(host)):
        assert (each["code"], each["text"]) == (what, f"{what}, for vm1 (qemu)")


def test_a_device_at_work_names_the_operation(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with start(*QEMU, "prepare", "vm1", NIC, host=host) as process:
        host.wait_hanging()
        found = use(host, NIC, "list", "--all-facts")
        assert (found["code"], found["text"]) == ("preparing", "preparing for vm1 (qemu)")
        assert found["evidence"][0].startswith("prepare vm1 (pid ")
        assert _status(host) == found
        host.release()
        process.communicate()


def test_a_device_whose_lock_is_kept_delays_the_others_no_longer_than_patience(
    host: SimulatedHost,
) -> None:
    """The overrides of the others are known; that of the locked one is not."""
    for name in ("0000:05:00.0", "0000:06:00.0", "0000:07:00.0"):
        host.add_pci(name, kernel_driver="igb", driver_override="igb")
    with host.hold_lock("0000:06:00.0"):
        found = {
            each["address"]: each["use"]
            for each in ask("list", "--all-facts", host=host)["devices"]
        }
        lines = run("list", "--all-facts", "--driver", "igb", host=host).stdout.splitlines()
    unread = "its driver_override was not read: the kernel does not answer"
    assert found["0000:06:00.0"]["evidence"] == [unread]
    assert lines[-1] == f"of what is available: {unread}"
    assert lines[-2] == "0000:07:00.0: host: driver_override is set (igb)"
    assert [found[f"0000:0{number}:00.0"]["whole"] for number in (5, 6, 7)] == [True, False, True]
    known = [found[f"0000:0{number}:00.0"]["text"] for number in (5, 6, 7)]
    set_ = "host: driver_override is set (igb)"
    assert known == [set_, "available", set_]


def test_what_cannot_be_seen_is_unknown(machine: SimulatedHost) -> None:
    os.rename(machine.sysfs.path("class/net"), machine.sysfs.path("class/net.away"))
    os.symlink("net", machine.sysfs.path("class/net"))  # ELOOP: neither there nor absent
    for words in (("list",), ("list", "--all-facts")):
        found = use(machine, NIC, *words)
        assert found["code"] == "unknown", found
    assert "what the host has of its devices is not known" in run("list", host=machine).stderr
