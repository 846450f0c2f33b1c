"""What the command says of devices that are gone, replaced or plugged in again."""

import json

import pytest

from hostdev_core import Connection, DeviceInUseError, Domain, PrepareFlags, StateError, USBHostdev
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run
from tests.sample import NIC


def replace(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="igb", id="8086:1521", iommu_group=1)


def test_another_card_is_not_lent(host: SimulatedHost) -> None:
    replace(host)
    found = ask("list", host=host)
    (card,) = (d for d in found["devices"] if d["address"] == NIC)
    assert (card["state"], card["used_by"], card["kernel_driver"]) == ("free", None, "igb")
    (absent,) = found["absent"]
    assert (absent["address"], absent["where"], absent["state"]) == (NIC, "replaced", "lent")
    assert absent["used_by"]["domain"] == "vm1"
    said = run("list", host=host)
    assert "lent to" not in said.stdout
    assert "another device is at its address" in said.stderr
    shown = ask("show", NIC, host=host)
    assert (shown["devices"][0]["record"], shown["devices"][0]["state"]) == (None, "free")
    assert shown["absent"] == found["absent"]


@pytest.mark.parametrize("what", ["pci", "usb"])
def test_show_knows_what_is_gone(host: SimulatedHost, what: str) -> None:
    host.add_usb("1-1", id="0951:1666", serial="7")
    name = NIC if what == "pci" else "1-1"
    run("prepare", "vm1", name, host=host)
    host.unplug(name)
    done = run("show", name, host=host)
    assert done.returncode == 0
    for word in (name, "vm1", "not there", "hostdev reattach vm1"):
        assert word in done.stdout
    shown = ask("show", name, host=host)
    assert (shown["devices"], shown["absent"][0]["where"]) == ([], "gone")
    if what == "usb":
        assert ask("show", "0951:1666", host=host) == shown
    assert run("show", "0000:09:00.0", host=host).returncode == 1


def test_a_monitor_hears_of_drift(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    assert run("status", host=host).returncode == 0
    host.unplug(NIC)
    done = run("status", "--json", host=host)
    assert (done.returncode, json.loads(done.stdout)["drift"][0]["what"]) == (5, "gone")
    (record,) = host.ledger.records()
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(stuck="x"))
    assert run("status", host=host).returncode == 3


def test_a_stick_that_was_plugged_in_again_names_the_way(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_usb("1-1", serial="7")
    host.add_usb("1-2", serial="8")
    stick = USBHostdev(port="1-1")
    run("prepare", "vm1", "1-1", host=host)
    host.unplug("1-1")
    host.add_usb("1-1", serial="7", device=9)
    done = run("status", host=host)
    assert done.returncode == 5
    assert "`hostdev reattach vm1`, then prepare it again" in done.stderr
    # QEMU looks for a port and takes what comes back there; another hypervisor had its number alone.
    assert "that was given its number has lost it, one that looks for its port" in done.stderr
    with pytest.raises(DeviceInUseError, match="hostdev reattach vm1"):
        conn.prepare_hostdevs(Domain("vm2", [stick]))
    with pytest.raises(StateError, match="plugged in again since; `hostdev reattach vm1`"):
        conn.prepare_hostdevs(Domain("vm1", [stick]), PrepareFlags.ALLOW_SAME_OWNER)
    run("reattach", "vm1", host=host)
    assert run("prepare", "vm1", "1-1", host=host).returncode == 0
    assert run("status", host=host).returncode == 0


def test_a_stick_that_was_plugged_in_again_is_its_domains_for_all_readers(
    host: SimulatedHost, conn: Connection
) -> None:
    """Its guest may have claimed it again; `list` and `show` say what `status` says."""
    host.add_usb("1-1", serial="7", device=4)
    run("prepare", "vm1", "1-1", host=host)
    host.unplug("1-1")
    host.add_usb("1-1", serial="7", device=9)
    told = run("status", host=host).stderr
    words = "it was unplugged and plugged in again"
    listed, shown = run("list", host=host), run("show", "1-1", host=host)
    assert words in told
    assert words in listed.stderr
    assert words in " ".join(shown.stdout.split())
    for said in (listed, shown):
        assert "lent to vm1 (qemu), plugged in again since" in said.stdout
        assert "another device" not in said.stdout + said.stderr
    for command in (("list",), ("show", "1-1")):
        found = ask(*command, host=host)
        (stick,) = (each for each in found["devices"] if each["address"] == "1-1")
        assert (stick["state"], stick["used_by"]["domain"]) == ("lent", "vm1")
        assert words in stick["replugged"]
        assert found["absent"] == []
    assert ask("show", "1-1", host=host)["devices"][0]["record"]["used_by"]["domain"] == "vm1"
    (stick,) = (each for each in conn.list_devices() if each.name == "1-1")
    assert stick.used_by is not None
    (lent,) = conn.get_active_usb_hostdev_list()
    assert (lent.number, lent.serial) == ("001:009", "7")
    run("reattach", "vm1", host=host)
    (stick,) = (each for each in ask("list", host=host)["devices"] if each["address"] == "1-1")
    assert (stick["state"], stick["replugged"]) == ("free", None)


def test_another_stick_at_its_port_is_free(host: SimulatedHost) -> None:
    host.add_usb("1-1", serial="7", device=4)
    run("prepare", "vm1", "1-1", host=host)
    host.unplug("1-1")
    host.add_usb("1-1", serial="8", device=9)
    for command in (("list",), ("show", "1-1")):
        found = ask(*command, host=host)
        (stick,) = (each for each in found["devices"] if each["address"] == "1-1")
        assert (stick["state"], stick["used_by"], stick["replugged"]) == ("free", None, None)
        assert [each["where"] for each in found["absent"]] == ["replaced"]


@pytest.mark.parametrize("what", ["gone", "replaced"])
@pytest.mark.parametrize("kind", ["pci", "usb", "detached"])
def test_what_was_done_about_one_that_is_not_there(
    host: SimulatedHost, conn: Connection, what: str, kind: str
) -> None:
    host.add_usb("1-1", serial="7")
    name = "1-1" if kind == "usb" else NIC
    took = ("device", "detach", name) if kind == "detached" else ("prepare", "vm1", name)
    assert run(*took, host=host).returncode == 0
    records = host.ledger.records()
    host.unplug(name)
    if what == "replaced" and kind == "usb":
        host.add_usb("1-1", serial="8")
    elif what == "replaced":
        host.add_pci(NIC, kernel_driver="igb", id="8086:1521", iommu_group=1)
    before = host.snapshot()
    words = ("device", "reattach", name) if kind == "detached" else ("reattach", "vm1")
    said = run(*words, host=host).stdout
    assert ("another device, which was left alone" in said) == (what == "replaced")
    assert "its record is removed" in said
    for word in ("given back", "as it was found"):
        assert word not in said
    assert (host.ledger.records(), host.snapshot()) == ([], before)
    with host.ledger.transaction() as transaction:
        transaction.insert(records[0])
    found = ask(*words, host=host)
    if kind == "detached":
        assert found["outcome"] == what
    else:
        assert (found["gone"], found["replaced"]) == ([name], [name] if what == "replaced" else [])
