"""What is not seen is not gone: a look that fails, or a part of the machine that is hidden."""

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    KernelError,
    StateError,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run
from tests.helpers.half_seen import FAILURES, STICK, in_words, make_machine
from tests.helpers.namespaces import inside, needs_namespaces
from tests.sample import GPU, NIC


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return make_machine(tmp_path / "host")


def failing(pattern: str, number: int) -> Callable[[str], None]:
    """A watcher that lets each look at a path with this ending fail."""

    def watcher(told: str) -> None:
        if told.endswith(pattern):
            raise OSError(number, os.strerror(number))

    return watcher


@pytest.mark.parametrize("hidden", ["sys", "sys/bus", "sys/bus/pci"])
def test_without_a_sysfs_nothing_is_given_back_nor_forgotten(
    host: SimulatedHost, conn: Connection, hidden: str
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.detach_device(GPU)
    lent, records = host.snapshot(), host.ledger.records()
    place, aside = Path(host.path(hidden)), Path(host.path("aside"))
    place.rename(aside)
    place.mkdir()
    for call in (
        lambda: conn.reattach_hostdevs("vm1"),
        lambda: conn.reattach_device(GPU),
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
        conn.reload,
    ):
        with pytest.raises(KernelError, match="cannot be seen"):
            call()
    if hidden == "sys":
        assert "cannot be seen" in run("list", host=host).stderr
    shutil.rmtree(place)
    aside.rename(place)
    assert (host.snapshot(), host.ledger.records()) == (lent, records)
    assert conn.reattach_hostdevs("vm1") == (NIC,)


HIDDEN = (
    *("sys/devices", f"sys/bus/pci/devices/{NIC}/", "sys/devices/pci0000:01", "sys/bus/pci"),
    *("sys/bus/usb", "sys/bus/usb/devices", f"sys/bus/usb/devices/{STICK}/"),
)


@needs_namespaces
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_part_of_the_sysfs_that_is_hidden_is_not_gone(
    host: SimulatedHost, conn: Connection, hidden: str
) -> None:
    """As a container's mounts hide it: the links that lead there are seen, and lead nowhere."""
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.prepare_hostdevs(Domain("vm2", [STICK]))
    lent, records = host.snapshot(), host.ledger.records()
    domain, address = ("vm2", STICK) if "usb" in hidden or STICK in hidden else ("vm1", NIC)
    hide = f'mount -t tmpfs none {shlex.quote(host.path(hidden))} && exec "$@"'
    place = ("unshare", "--mount", "sh", "-c", hide, "sh")
    for words in (("reattach", domain), ("reattach", domain, address), ("recover",), ("status",)):
        code, out, said = inside(place, *QEMU, "--host", host.root, *words)
        if words != ("recover",):
            assert (code, out) == (1, ""), (words, out, said)
            assert "mounted" in said
    code, out, said = inside(place, "--host", host.root, "list", "--json")
    answer = json.loads(out)
    seen = {each["address"]: each for each in answer["devices"]}
    absent = {each["address"]: each["where"] for each in answer["absent"]}
    assert absent.get(address, "unseen") == "unseen"
    assert address in absent or seen[address]["unread"]
    assert (host.snapshot(), host.ledger.records()) == (lent, records)
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert conn.reattach_hostdevs("vm2") == (STICK,)


@pytest.mark.parametrize("number", FAILURES)
def test_one_failing_stat_is_no_sign_that_a_device_has_gone(
    host: SimulatedHost, conn: Connection, number: int
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    lent = host.snapshot()
    host.watch_reads(failing(f"/bus/pci/devices/{NIC}", number))
    with pytest.raises(HostdevError):
        conn.reattach_hostdevs("vm1")
    with pytest.raises(HostdevError):
        conn.reload()
    host.watch_reads(None)
    assert host.snapshot() == lent
    assert [address for address, *_ in in_words(host)] == [NIC]
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before


def test_a_card_that_was_pulled_is_still_released(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.unplug(NIC)
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.ledger.records() == []


def test_a_group_node_that_is_not_seen_keeps_the_device_lent(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    node = Path(host.path("dev/vfio/1"))
    with host.hold(NIC):
        node.rename(node.with_name("hidden"))
        with pytest.raises(HostdevError) as raised:
            conn.reattach_hostdevs("vm1")
        assert "dev/vfio/1 cannot be seen" in " ".join(map(str, raised.value.exceptions))  # type: ignore[attr-defined]
        assert in_words(host) == [(NIC, "active", False)]
    node.with_name("hidden").rename(node)
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_node_that_is_not_seen_keeps_a_found_one_from_being_lent(
    host: SimulatedHost, conn: Connection
) -> None:
    host.modules.load("vfio-pci")
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "vfio-pci")
    host.sysfs.write("bus/pci/drivers/e1000e/unbind", NIC)
    host.sysfs.write("bus/pci/drivers/vfio-pci/bind", NIC)
    os.unlink(host.path("dev/vfio/1"))
    with pytest.raises(StateError, match="dev/vfio/1 cannot be seen"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.ledger.records() == []


def test_a_list_shows_what_it_can(host: SimulatedHost, conn: Connection) -> None:
    host.watch_reads(failing(f"{GPU}/modalias", errno.EIO))
    found = {device.name: device for device in conn.list_devices()}
    unseen = found[GPU].unread
    assert unseen is not None
    assert "modalias" in unseen
    assert found[NIC].unread is None
    assert found[NIC].kernel_driver == "e1000e"


@needs_namespaces
def test_a_dev_without_anything_keeps_no_worker_from_its_work(host: SimulatedHost) -> None:
    """In a chroot, or a container that brings a /dev of its own."""
    before = host.snapshot()
    keeping_shm = (  # in which the machine may be
        "mount --bind /dev/shm /mnt && mount -t tmpfs own /dev && mkdir /dev/shm"
        ' && mount --move /mnt /dev/shm && exec "$@"'
    )
    own_dev = ("unshare", "--mount", "sh", "-c", keeping_shm, "sh")
    for words in (("prepare", "vm1", NIC), ("reattach", "vm1")):
        code, _, said = inside(own_dev, *QEMU, "--host", host.root, *words)
        assert (code, said) == (0, "")
    assert host.snapshot() == before
