"""A text file that cannot be read is not one that says nothing: refused, or right, and never lent."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    KernelError,
    NotAssignableError,
    VetoError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.looks import Nth
from tests.sample import NIC

IDLE, DISK = "0000:02:00.0", "0000:03:00.0"
FAILURES = (errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOMEM)
MODULES = "lib/modules/6.1.0-simulated"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return machine(tmp_path / "host")


def machine(folder: Path) -> SimulatedHost:
    host = SimulatedHost.create(folder)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(IDLE, id="1234:5678", iommu_group=2)
    host.add_pci(DISK, id="144d:a808", class_="010802", kernel_driver="nvme", block="nvme0n1",
                 iommu_group=3)  # fmt: skip
    return host


def failing(path: str, number: int) -> Callable[[str], None]:
    """A watcher that lets each read of this file fail."""

    def watcher(told: str) -> None:
        if told.startswith("read ") and told.endswith(f"/{path}"):
            raise OSError(number, os.strerror(number))

    return watcher


def put(host: SimulatedHost, path: str, text: str) -> None:
    file = Path(host.path(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def raised_by(call: Callable[[], object]) -> HostdevError:
    with pytest.raises(HostdevError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize("number", FAILURES)
@pytest.mark.parametrize("path", ["proc/self/mountinfo", "proc/swaps"])
def test_uses_that_cannot_be_read(host: SimulatedHost, path: str, number: int) -> None:
    put(host, "proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2\n")
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        host.watch_reads(failing(path, number))
        for call in (conn.plan, conn.prepare_hostdevs):
            error = raised_by(lambda call=call: call(Domain("vm1", [DISK])))  # type: ignore[misc]
            assert isinstance(error, KernelError)
            assert (error.path, error.errno) == (host.path(path), number)
            assert f"cannot read {host.path(path)}: {os.strerror(number)}" in str(error)
        assert (host.snapshot(), host.ledger.records()) == (before, [])
        host.watch_reads(None)
        assert isinstance(raised_by(lambda: conn.plan(Domain("vm1", [DISK]))), VetoError)


@pytest.mark.parametrize("number", FAILURES)
@pytest.mark.parametrize("name", ["modules.dep", "modules.softdep", "modules.alias"])
def test_what_comes_along_cannot_be_read(host: SimulatedHost, name: str, number: int) -> None:
    """A soft dependency whose driver would bind a device that nobody asked for."""
    put(host, f"{MODULES}/modules.softdep", "softdep vfio_pci pre: acme\n")
    with Path(host.path(f"{MODULES}/modules.alias")).open("a") as file:
        file.write("alias pci:v00001234d00005678sv*sd*bc*sc*i* acme\n")
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        error = raised_by(lambda: conn.prepare_hostdevs(Domain("vm1", [NIC])))
        assert isinstance(error, NotAssignableError)
        assert error.rule == "module-ids"
        host.watch_reads(failing(name, number))
        error = raised_by(lambda: conn.prepare_hostdevs(Domain("vm1", [NIC])))
        assert "cannot read" in str(error)
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", ["/modules.dep", "/modules.builtin", f"{IDLE}/driver_override"])
def test_each_look_at_what_an_override_names(tmp_path: Path, name: str, failure: int) -> None:
    """The device that nobody asked for may be on a driver that the module brings, or not."""
    rules: list[str | None] = []
    while True:
        host = machine(tmp_path / f"{len(rules)}")
        host.add_driver("acme", module="nic_vfio", loaded=False, variant_for="8086:10d3")
        put(host, f"sys/bus/pci/devices/{IDLE}/driver_override", "nic_x\n")
        before, nth = host.snapshot(), Nth(len(rules) + 1, failure, name)
        with open_connection("qemu:///system", host=host) as conn:
            host.watch_reads(nth)
            error = raised_by(lambda conn=conn: conn.prepare_hostdevs(Domain("vm1", [NIC])))  # type: ignore[misc]
        assert isinstance(error, NotAssignableError), nth.hit
        assert (host.snapshot(), host.ledger.records()) == (before, [])
        rules.append(error.rule)
        if nth.hit is None:
            break
        assert os.strerror(failure) in " ".join(error.evidence), nth.hit
    assert {*rules} <= {"stub", "module-ids"}
    assert rules.count("module-ids") > 1, rules


@pytest.mark.parametrize("number", FAILURES)
def test_whether_this_is_a_dom0_cannot_be_read(tmp_path: Path, number: int) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.watch_reads(failing("proc/xen/capabilities", number))
    assert "capabilities" in str(raised_by(lambda: open_connection("xen:///system", host=host)))
    host.watch_reads(None)
    with open_connection(host=host) as conn:
        assert conn.uri == "xen:///system"


def test_what_is_not_there_says_nothing(host: SimulatedHost) -> None:
    put(host, "proc/nothing", "")
    assert host.read_text("proc/swaps") is None
    assert host.read_text("proc/nothing/below") is None
    assert host.read_text("proc/nothing") == ""
    host.watch_reads(failing("proc/nothing", errno.EIO))
    assert host.glance_text("proc/nothing") is None
    host.watch_reads(None)
    os.mkfifo(host.path("proc/pipe"))
    for path in ("proc/pipe", "proc"):
        assert host.glance_text(path) is None


# Each look at what modprobe is told, one after the other.

TOLD = {
    "benign": {"etc/modprobe.d/a.conf": "options e1000e debug=1\n", "proc/cmdline": "quiet\n"},
    "ids": {
        "etc/modprobe.d/a.conf": "# nothing\n",
        "usr/lib/modprobe.d/z.conf": "options vfio-pci ids=1234:5678\n",
        "proc/cmdline": "quiet\n",
    },
    "ids of the kernel": {"proc/cmdline": "quiet vfio-pci.ids=1234:5678\n"},
    "disabled": {"run/modprobe.d/no.conf": "install vfio-pci /bin/false\n", "proc/cmdline": ""},
    "soft": {"etc/modprobe.d/s.conf": "softdep vfio-pci pre: acme\n", "proc/cmdline": ""},
}  # fmt: skip


def ending(conn: Connection) -> str:
    """How a prepare ends: lent, or refused."""
    try:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    except HostdevError:
        return "refused"
    return "lent"


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", TOLD)
def test_each_look_at_what_modprobe_is_told(tmp_path: Path, name: str, failure: int) -> None:
    wanted, number = "", 0
    while True:
        host = machine(tmp_path / f"{number}")
        for path, text in TOLD[name].items():
            put(host, path, text)
        with Path(host.path(f"{MODULES}/modules.alias")).open("a") as file:
            file.write("alias pci:v00001234d00005678sv*sd*bc*sc*i* acme\n")
        before, nth = host.snapshot(), Nth(number, failure, "modprobe.d", "/proc/cmdline")
        with open_connection("qemu:///system", host=host) as conn:
            host.watch_reads(nth)
            ended = ending(conn)
            host.watch_reads(None)
        if number == 0:
            wanted = ended
            assert wanted == ("lent" if name == "benign" else "refused")
        elif nth.hit is None:
            break
        assert ended in {wanted, "refused"}, nth.hit
        if ended == "refused":
            assert (host.snapshot(), host.ledger.records()) == (before, []), nth.hit
        number += 1
    assert number > 5
