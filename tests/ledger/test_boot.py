"""What a state directory and a boot are worth, and files of a machine that are none."""

import os
import time
from pathlib import Path

import pytest

from hostdev_core import Domain, InputError, Registry, StateError, open_connection
from hostdev_core.host import Host
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.sample import NIC

FIRST, SECOND = "6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1", "d41b7c02-77e1-4a0e-8a53-0e94c07a9b11"


def seen_as(host: SimulatedHost, boot: str, began: float) -> SimulatedHost:
    """The machine as a process sees it that reads this boot id, in a boot that began then."""
    path = Path(host.path("proc/sys/kernel/random/boot_id"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{boot}\n")
    Path(host.path("proc/stat")).write_text(f"cpu 1 2 3\nbtime {began:.0f}\n")
    return SimulatedHost.open(host.root)


def lend_in(boot: SimulatedHost, registry: Registry) -> None:
    """Lend the network card, as a process of this boot does."""
    with open_connection("qemu:///system", host=boot, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/random/boot_id"), reason="no such sysctl")
def test_the_boot_id_of_this_machine_is_read() -> None:
    assert Host().boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_another_boot_id_alone_voids_no_living_record(
    host: SimulatedHost, registry: Registry
) -> None:
    early = time.time() - 1000
    lend_in(seen_as(host, FIRST, early), registry)
    inside = seen_as(host, SECOND, early)
    with open_connection("qemu:///system", host=inside, registry=registry) as conn:
        assert [d.name for d in conn.get_active_pci_hostdev_list()] == [NIC]
        assert conn.reattach_hostdevs("vm1") == (NIC,)


@pytest.mark.parametrize("bound", [True, False])
def test_an_earlier_boot_is_over_when_nothing_is_where_it_was_put(
    host: SimulatedHost, registry: Registry, bound: bool
) -> None:
    lend_in(seen_as(host, FIRST, time.time() - 1000), registry)
    if not bound:
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", NIC)
        host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "\n")
        host.sysfs.write("bus/pci/drivers/e1000e/bind", NIC)
    after = seen_as(host, SECOND, time.time() + 1000)
    assert [record.address for record in after.ledger.records()] == ([NIC] if bound else [])


@pytest.mark.parametrize("seen", [True, False])
def test_a_stuck_device_proves_no_boot_and_one_that_cannot_be_seen_ends_none(
    host: SimulatedHost, registry: Registry, seen: bool
) -> None:
    before = seen_as(host, FIRST, time.time() - 1000)
    lend_in(before, registry)
    (record,) = before.ledger.records()
    folder = Path(host.path("sys/bus/pci/devices"))
    if seen:
        with before.ledger.transaction() as transaction:
            transaction.update(record, record._replace(stuck="it was"))
    else:
        folder.rename(folder.with_name("kept"))
        folder.symlink_to("devices")  # ELOOP, for root too
    after = seen_as(host, SECOND, time.time() + 1000)
    assert [record.address for record in after.ledger.records()] == ([] if seen else [NIC])


@pytest.mark.parametrize("place", ["", "op"])
def test_a_directory_that_others_may_look_into_is_closed_before_a_change(
    host: SimulatedHost, registry: Registry, place: str
) -> None:
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        folder = Path(host.state_dir, place)
        folder.chmod(0o755)
        conn.get_active_pci_hostdev_list()
        assert folder.stat().st_mode & 0o777 == 0o755  # who only reads changes nothing
        conn.reattach_hostdevs("vm1")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_pipe_for_a_journal_keeps_nobody_waiting(host: SimulatedHost, registry: Registry) -> None:
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        journal = Path(f"{host.ledger.path}-journal")
        journal.unlink(missing_ok=True)
        os.mkfifo(journal)
        with pytest.raises(StateError, match="journal is no regular file"):
            conn.reattach_hostdevs("vm1")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [_pipe, _endless])
@pytest.mark.parametrize("name", [".kernel/machine", ".kernel/lock", "proc/self/mountinfo"])
def test_a_machine_whose_file_is_none_is_an_error_and_no_wait(
    host: SimulatedHost, name: str, put: object
) -> None:
    path = Path(host.root, name)
    path.unlink(missing_ok=True)
    put(path)  # type: ignore[operator]
    for words in (("list",), ("show", NIC), ("status",)):
        done = run(*words, host=host)
        assert done.returncode in {0, 1, 2}, done.stderr
        assert "Traceback" not in done.stderr


def test_a_description_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "machine.json")
    with pytest.raises(InputError, match="no regular file"):
        SimulatedHost.replay(tmp_path / "machine.json", tmp_path / "host")
