"""What brings a simulated host into a state that the doctor knows."""

from collections.abc import Callable
from pathlib import Path

from hostdev_core import Domain
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC, connect, connect_xen

Change = Callable[[SimulatedHost], object]


def put(path: str, text: str | bytes, mode: int = 0o644) -> Change:
    """Write a file of the machine."""

    def change(host: SimulatedHost) -> None:
        file = Path(host.path(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)

    return change


def drop(path: str) -> Change:
    return lambda host: Path(host.path(path)).unlink()


def chmod(path: str, mode: int) -> Change:
    return lambda host: Path(host.path(path)).chmod(mode)


def cmdline(words: str) -> Change:
    return put("proc/cmdline", f"root=/dev/sda1 {words}\n")


def modprobe(text: str) -> Change:
    return put("etc/modprobe.d/mine.conf", f"{text}\n")


def load(module: str) -> Change:
    return lambda host: host.modules.load(module)


def lend(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


def bind(driver: str, address: str = NIC, *, override: bool = True) -> Change:
    """Bind a device as an administrator does."""

    def change(host: SimulatedHost) -> None:
        folder = f"bus/pci/devices/{address}"
        host.sysfs.write(f"{folder}/driver_override", driver)
        host.sysfs.write(f"{folder}/driver/unbind", address)
        host.sysfs.write("bus/pci/drivers_probe", address)
        if not override:
            host.sysfs.write(f"{folder}/driver_override", "\n")

    return change


def new_id(host: SimulatedHost) -> None:
    """Take a card by its ids, as dpdk-devbind once did."""
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver/unbind", NIC)
    host.sysfs.write("bus/pci/drivers/pci-stub/new_id", "8086 10d3")


def drift(host: SimulatedHost) -> None:
    lend(host)
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver/unbind", NIC)


def stuck(host: SimulatedHost) -> None:
    lend(host)
    host.on_write("*/e1000e/bind", errno=5)
    with connect(host) as conn:
        try:
            conn.reattach_hostdevs("vm1")
        except Exception:
            return
    raise AssertionError("it was given back")


def left_over(host: SimulatedHost) -> None:
    """A record of an operation that nobody holds."""
    lend(host)
    (record,) = host.ledger.records()
    with host.ledger.transaction() as records:
        records.update(record, record._replace(op="0123456789abcdef"))


def by_xl(host: SimulatedHost) -> None:
    """A device that xl pci-assignable-add put on pciback."""
    bind("pciback", override=False)(host)
    host.xenstore.write(f"/libxl/pci/{NIC.translate({58: 45, 46: 45})}/driver_path", "e1000e")


def neighbours(host: SimulatedHost) -> None:
    host.add_pci("0000:07:00.0", kernel_driver="e1000e", iommu_group=7)
    host.add_pci("0000:08:00.0", kernel_driver="e1000e", iommu_group=7)


def twins(host: SimulatedHost) -> None:
    host.add_pci("0000:07:00.0", kernel_driver="e1000e", iommu_group=7)
    host.add_pci("0000:07:00.1", kernel_driver="e1000e", iommu_group=7)


def ungrouped(host: SimulatedHost) -> None:
    Path(host.root, "sys/bus/pci/devices", DISK, "iommu_group").unlink()


def noiommu_group(host: SimulatedHost) -> None:
    put("sys/kernel/iommu_groups/2/name", "vfio-noiommu\n")(host)


def built_in(host: SimulatedHost) -> None:
    host.add_driver("vfio-pci")
    modprobe("options vfio-pci ids=8086:10d3")(host)


def damaged(host: SimulatedHost) -> None:
    lend(host)
    put("run/hostdev/state.db", b"no database at all" * 100, 0o600)(host)


def both(*changes: Change) -> Change:
    def change(host: SimulatedHost) -> None:
        for each in changes:
            each(host)

    return change


def none(host: SimulatedHost) -> None:
    del host


def lend_to_xen(host: SimulatedHost) -> None:
    with connect_xen(host) as conn:
        conn.prepare_hostdevs(Domain("guest1", [NIC]))
