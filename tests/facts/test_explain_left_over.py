"""What is explained of a device that a killed call left is what a prepare does once it has recovered that."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    PCIHostdev,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.faults import die

NIC, SIBLING, VF, HUB = "0000:01:00.0", "0000:01:00.1", "0000:01:10.0", "0000:06:00.0"


class DyingBefore:
    """The process is killed when its devices are claimed, and nothing is written yet."""

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        die("before")


class DyingAfter:
    """The process is killed when its devices are on their stubs."""

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        die("after")


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return SimulatedHost.create(tmp_path / "host")


def kill_a_prepare(host: SimulatedHost, names: Iterable[str], plugin: object) -> None:
    """Another process is killed by a plugin while it lends these devices."""
    pid = os.fork()
    if pid == 0:
        try:
            registry = Registry.from_entry_points()
            registry.register(plugin)
            with open_connection("qemu:///system", host=host, registry=registry) as conn:
                conn.prepare_hostdevs(Domain("vm1", [*names]))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def check_agreement(conn: Connection, wanted: PCIHostdev) -> str | None:
    """Explain a device, and lend it: the rule that refuses both, or None where it is lent."""
    domain = Domain("vm9", [wanted])
    (found,) = conn.explain(domain)
    (first,) = found.first
    assert "vm1" in first
    assert found.warnings == ()
    assert lend(conn, domain) == [reason.reason for reason in found.reasons]
    return found.reasons[0].rule if found.reasons else None


def lend(conn: Connection, domain: Domain) -> list[str]:
    """What a prepare says against a domain's devices; nothing where they are lent."""
    try:
        conn.prepare_hostdevs(domain)
    except HostdevError as error:
        return [str(error.args[0])]
    return []


def test_its_siblings_go_back_to_the_host_with_it(host: SimulatedHost) -> None:
    for address in (NIC, SIBLING):
        host.add_pci(address, kernel_driver="e1000e", iommu_group=1)
    kill_a_prepare(host, (NIC, SIBLING), DyingAfter())
    with open_connection("qemu:///system", host=host) as conn:
        assert check_agreement(conn, PCIHostdev(address=NIC)) == "group-not-viable"


def test_it_is_not_detached_any_more(host: SimulatedHost) -> None:
    host.add_pci(NIC, kernel_driver="e1000e")
    kill_a_prepare(host, [NIC], DyingAfter())
    with open_connection("qemu:///system", host=host) as conn:
        assert check_agreement(conn, PCIHostdev(address=NIC, managed=False)) == "not-detached"


def test_one_that_was_detached_is_detached_again(host: SimulatedHost) -> None:
    host.add_pci(NIC, kernel_driver="e1000e")
    with open_connection("qemu:///system", host=host) as conn:
        conn.detach_device(NIC)
        kill_a_prepare(host, [NIC], DyingAfter())
        assert check_agreement(conn, PCIHostdev(address=NIC, managed=False)) is None


def test_a_physical_function_goes_back_before_its_virtual_one_is_lent(host: SimulatedHost) -> None:
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1, sriov_totalvfs=2)
    kill_a_prepare(host, [NIC], DyingAfter())
    host.add_pci(VF, kernel_driver="e1000e", iommu_group=2, physfn=NIC)
    with open_connection("qemu:///system", host=host) as conn:
        assert check_agreement(conn, PCIHostdev(address=VF)) is None


def test_what_is_in_the_way_behind_it_is_told(host: SimulatedHost) -> None:
    for port, ids in (("1-1", "046d:c077"), ("1-2", "18d1:4e22")):
        host.add_usb(port, id=ids, controller=HUB)
    kill_a_prepare(host, ["1-1"], DyingBefore())
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm2", ["1-2"]))
        assert check_agreement(conn, PCIHostdev(address=HUB)) == "lent"


def test_what_the_kernel_crashed_at_is_a_reason(host: SimulatedHost) -> None:
    """Nothing recovers it but a reboot."""
    host.add_pci(NIC, kernel_driver="e1000e")
    host.on_write("*/vfio-pci/bind", crash=True)
    with open_connection("qemu:///system", host=host) as conn:
        with pytest.raises(HostdevError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        (found,) = conn.explain(Domain("vm9", [NIC]))
        assert (found.first, [reason.rule for reason in found.reasons]) == ((), ["lent"])
        with pytest.raises(HostdevError):
            conn.prepare_hostdevs(Domain("vm9", [NIC]))
    host.release()
