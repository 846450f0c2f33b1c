"""Domains and devices of a command: what is named is accounted for, and nothing is taken for the other."""

import errno
import json
import shlex
from pathlib import Path

import pytest

from hostdev_core import Domain, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run

NIC, DISK, GPU, FREE, NONE = (f"0000:{bus:02x}:00.0" for bus in (1, 2, 3, 4, 15))
GROUP = [f"0000:05:00.{number}" for number in (0, 1)]
BIND = "bus/pci/drivers"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    for number, address in enumerate((NIC, DISK, GPU, FREE), 1):
        host.add_pci(address, kernel_driver="e1000e", iommu_group=number)
    host.add_usb("1-1", id="18d1:4e22", serial="A1")
    host.add_usb("1-2", id="18d1:4e22", serial="B2")
    return host


def test_each_device_that_was_named_has_its_line(host: SimulatedHost) -> None:
    ask("prepare", "vm1", NIC, host=host)
    ask("prepare", "vm 2", DISK, "1-1", host=host)
    ask("device", "detach", GPU, host=host)
    named = (NIC, DISK, GPU, FREE, NONE, "1-1", "1-2", "dead:beef")
    done = run("reattach", "vm1", *named, host=host)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines[NIC] == "is given back"
    assert "is held by domain 'vm 2' of qemu" in lines[DISK]
    assert lines[DISK].endswith(f"`hostdev --host {host.root} reattach 'vm 2' {DISK}`")
    assert lines[GPU].startswith("was detached, for nobody: `hostdev ")
    assert lines[FREE] == "is held by nobody"
    assert lines[NONE].startswith("is unknown: there is no such device")
    assert "is held by domain 'vm 2'" in lines["1-1"]
    assert lines["1-2"] == "is held by nobody"
    assert lines["dead:beef"].startswith("is unknown")
    assert [record.address for record in host.ledger.records()] == [DISK, GPU, "1-1"]


@pytest.mark.long
def test_the_commands_that_it_names_do_it(host: SimulatedHost) -> None:
    before = host.snapshot()
    ask("prepare", "vm 2", DISK, "1-1", host=host)
    ask("device", "detach", GPU, host=host)
    done = run("reattach", "vm1", DISK, GPU, "1-1", host=host)
    for line in done.stdout.splitlines()[1:]:
        words = shlex.split(line.split("`")[1])
        assert words[0] == "hostdev"
        assert run(*words[1:]).returncode == 0
    assert (host.ledger.records(), host.snapshot()) == ([], before)


def test_the_same_as_json(host: SimulatedHost) -> None:
    ask("prepare", "vm2", DISK, "1-1", host=host)
    ask("device", "detach", GPU, host=host)
    answer = ask("reattach", "vm1", DISK, GPU, FREE, NONE, "18d1:4e22", host=host)
    others = {each["name"]: each for each in answer["named_others"]}
    assert {name: each["state"] for name, each in others.items()} == {
        DISK: "lent", GPU: "detached", FREE: "free", NONE: "unknown", "18d1:4e22": "lent",
    }  # fmt: skip
    (record,) = others["18d1:4e22"]["records"]
    assert (record["address"], record["used_by"]["domain"]) == ("1-1", "vm2")


@pytest.mark.parametrize("name", ["vm1", "VM11", "Vm1l"])
def test_a_name_that_is_nearly_the_one_is_told(host: SimulatedHost, name: str) -> None:
    ask("prepare", "VM1", NIC, host=host)
    ask("prepare", "other", DISK, host=host)
    done = run("reattach", name, host=host)
    first, second = done.stdout.splitlines()
    assert (done.returncode, first) == (0, f"{name} holds nothing under qemu:///system")
    assert second.startswith(f"{NIC} is held by domain 'VM1'")
    assert second.endswith(f"did you mean `hostdev --host {host.root} reattach VM1 {NIC}`?")
    (record,) = ask("reattach", name, host=host)["held_by_similar"]
    assert record["used_by"]["domain"] == "VM1"


def test_a_namesake_with_another_uuid_is_told(host: SimulatedHost) -> None:
    mine, other = "5ca1ab1e-0000-4000-8000-000000000001", "5ca1ab1e-0000-4000-8000-000000000002"
    ask("prepare", "vm1", NIC, "--uuid", mine, host=host)
    done = run("reattach", "vm1", "--uuid", other, host=host)
    line = done.stdout.splitlines()[1]
    assert line.endswith(f" reattach vm1 {NIC} --uuid {mine}`")
    assert run(*shlex.split(line.split("`")[1])[1:]).stdout == f"{NIC} is given back\n"


@pytest.mark.parametrize("command", ["prepare", "plan", "reattach"])
@pytest.mark.parametrize("name", ["01:00.0", NIC, "1-1", "001:002", "18d1:4e22"])
def test_a_device_in_the_domains_place_is_refused(
    host: SimulatedHost, command: str, name: str
) -> None:
    before = host.snapshot()
    done = run(command, name, DISK, host=host)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{name}' reads as a device, and the domain comes first" in done.stderr
    assert f"`hostdev --host {host.root} {command} DOMAIN {name} {DISK}`" in done.stderr
    assert (host.ledger.records(), host.snapshot()) == ([], before)


def test_a_domain_behind_its_devices_is_put_before_them(host: SimulatedHost) -> None:
    refused = run("prepare", "01:00.0", "02:00.0", "my vm", host=host)
    meant = shlex.split(refused.stderr.split("`")[1])
    assert meant[-4:] == ["prepare", "my vm", "01:00.0", "02:00.0"]
    assert run(*meant[1:]).returncode == 0
    assert {r.owner.domain for r in host.ledger.records() if r.owner} == {"my vm"}


def test_a_domain_that_is_called_like_a_device(host: SimulatedHost) -> None:
    uuid = "5ca1ab1e-0000-4000-8000-000000000001"
    assert run("prepare", "1-2", NIC, "--uuid", uuid, host=host).returncode == 0
    assert run("reattach", "1-2", host=host).stdout == f"{NIC} is given back\n"
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("01:00.0", [DISK]))
    assert run("reattach", "01:00.0", host=host).stdout == f"{DISK} is given back\n"


def test_what_failed_is_told_beside_what_was_done(host: SimulatedHost) -> None:
    ask("prepare", "vm1", NIC, DISK, host=host)
    ask("prepare", "vm2", GPU, host=host)
    host.on_write(f"{BIND}/e1000e/bind", value=DISK, errno=errno.EIO, count=9)
    for words in ((), ("--json",)):
        done = run("reattach", "vm1", NIC, DISK, GPU, NONE, *words, host=host)
        assert done.returncode == 3
        assert f"{DISK}" in done.stderr
        if words:
            answer = json.loads(done.stdout)
            assert ([*answer["failed"]], answer["returned"], answer["waiting"]) == ([DISK], [], [])
            assert [each["name"] for each in answer["named_others"]] == [NIC, GPU, NONE]
        else:
            assert done.stdout.splitlines()[0] == f"{NIC} is given back"
            assert f"{GPU} is held by domain 'vm2'" in done.stdout
            assert f"{NONE} is unknown" in done.stdout


def test_one_whose_group_is_still_lent_is_told_to_wait(host: SimulatedHost) -> None:
    for address in GROUP:
        host.add_pci(address, kernel_driver="e1000e", iommu_group=9)
    before = host.snapshot()
    ask("prepare", "vm1", NIC, GROUP[0], GROUP[1], host=host)
    done = run("reattach", "vm1", GROUP[0], host=host)
    waits = "is free of vm1; it waits on its stub for the rest of its IOMMU group"
    assert (done.returncode, done.stdout) == (0, f"{GROUP[0]} {waits}\n")
    assert run("reattach", "vm1", host=host).returncode == 0
    assert (host.ledger.records(), host.snapshot()) == ([], before)


def test_a_usb_device_that_cannot_be_read_hides_nothing_that_was_done(host: SimulatedHost) -> None:
    before = host.snapshot()
    ask("prepare", "vm1", NIC, host=host)
    kind = Path(host.path("sys/bus/usb/devices/1-2/bDeviceClass"))
    kind.rename(kept := kind.with_name("kept"))
    kind.symlink_to("bDeviceClass")  # ELOOP, for root too
    done = run("reattach", "vm1", NIC, "1-1", host=host)
    assert (done.returncode, done.stdout.splitlines()) == (
        0, [f"{NIC} is given back", "1-1 is held by nobody"]
    ), done.stderr  # fmt: skip
    kept.rename(kind)
    assert (host.ledger.records(), host.snapshot()) == ([], before)


@pytest.mark.long
def test_what_is_stuck_does_not_wait_for_its_group(host: SimulatedHost) -> None:
    ask("prepare", "vm1", NIC, DISK, host=host)
    host.on_write(f"{BIND}/e1000e/bind", value=NIC, errno=errno.EIO, count=9)
    assert run("reattach", "vm1", NIC, host=host).returncode == 3
    done = run("reattach", "vm1", DISK, host=host)
    assert (done.returncode, done.stdout) == (0, f"{DISK} is given back\n")
    assert ask("reattach", "vm1", DISK, DISK, f"{DISK[5:]}", host=host)["waiting"] == []


def test_a_device_that_is_named_twice_is_told_once(host: SimulatedHost) -> None:
    done = run("reattach", "vm1", FREE, FREE, FREE[5:], host=host)
    assert done.stdout.count("is held by nobody") == 1
