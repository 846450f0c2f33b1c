"""Power control, reset, uevent, the network interface, and files that cannot be written or read."""

from hostdev_core.kernel.sysfs import Sysfs

from .fact import fact
from .raw import of_device, of_driver, read, seen, send_home, write


@fact("ok", "auto", "ok", "on", "EINVAL", "EINVAL", "EINVAL", "on", "ok")
def power_control_knows_two_words(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    path = of_device(device, "power/control")
    before = read(sysfs, path) or ""
    return [
        write(sysfs, path, "auto"),
        read(sysfs, path),
        write(sysfs, path, "on\n"),
        read(sysfs, path),
        write(sysfs, path, "off"),
        write(sysfs, path, "\n"),
        write(sysfs, path, " on"),
        read(sysfs, path),
        write(sysfs, path, before),
    ]


@fact("ok", "ok", "EINVAL", "EINVAL", "EINVAL", "EINVAL", "ok", "ok", "ok")
def reset_wants_a_one(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    values = ("1\n", "0", "2", "yes", "-1", "", "0x1")
    seen: list[object] = [write(sysfs, of_driver(driver, "unbind"), device)]
    seen += [write(sysfs, of_device(device, "reset"), value) for value in values]
    return [*seen, send_home(sysfs, device, driver)]


@fact("ok", True, "EINVAL", "EINVAL", True, "ok", "", "ENOTTY", "ok", True)
def reset_methods_can_be_chosen(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    path = of_device(device, "reset_method")
    before = read(sysfs, path) or ""
    last = before.split()[-1]
    return [
        write(sysfs, path, f"{last}\n"),
        read(sysfs, path) == last,
        write(sysfs, path, "nonsense"),
        write(sysfs, path, f"{last} nonsense"),
        read(sysfs, path) == last,
        write(sysfs, path, "\n"),
        read(sysfs, path),
        write(sysfs, of_device(device, "reset"), "1"),
        write(sysfs, path, "default"),
        read(sysfs, path) == before,
    ]


@fact("ENOENT", "ENOENT", "EACCES", "EISDIR", "EACCES", "EACCES", "EACCES", None, None)
def files_that_cannot_be_written_or_read(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    return [
        write(sysfs, of_device(device, "nonsense"), "1"),
        write(sysfs, of_driver("nonsense", "bind"), device),
        write(sysfs, of_device(device, "vendor"), "0x8086"),
        write(sysfs, of_device(device, "power"), "on"),
        read(sysfs, of_driver(driver, "bind")),
        read(sysfs, of_device(device, "reset")),
        read(sysfs, "bus/pci/drivers_probe"),
        read(sysfs, of_device(device, "sriov_vf_nonsense")),
        read(sysfs, of_driver("nonsense", "bind")),
    ]


@fact(True, "ok", True, "ok")
def uevent_names_the_driver(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    path = of_device(device, "uevent")
    first = (read(sysfs, path) or "").splitlines()[0]
    unbound = write(sysfs, of_driver(driver, "unbind"), device)
    left = (read(sysfs, path) or "").splitlines()[0]
    home = send_home(sysfs, device, driver)
    return [first == f"DRIVER={driver}", unbound, left.startswith("PCI_CLASS="), home]


@fact("ok", "ok", "ok", "ok", "ok", "ENOENT")
def the_parts_of_a_sysfs_are_one_file_system(
    sysfs: Sysfs, device: str, driver: str
) -> list[object]:
    paths = ("bus", "bus/pci/devices", of_device(device, ""), of_driver(driver, ""), "kernel")
    return [seen(sysfs, path) for path in (*paths, of_device("0000:7f:1f.7", ""))]


@fact("net", True, "ok", [], "ok", "net", True)
def an_interface_has_another_number_each_time(
    sysfs: Sysfs, device: str, driver: str
) -> list[object]:
    subsystem, first = _interface(sysfs, device)
    unbound = write(sysfs, of_driver(driver, "unbind"), device)
    left = sysfs.names(of_device(device, "net"))
    home = send_home(sysfs, device, driver)
    again, second = _interface(sysfs, device)
    return [subsystem, first.isdecimal(), unbound, left, home, again, second not in {first, ""}]


def _interface(sysfs: Sysfs, device: str) -> tuple[str | None, str]:
    """Subsystem and number of a card's interface, which udev may be renaming: it is looked for again."""
    for _ in range(1000):
        for name in sysfs.names(of_device(device, "net")):
            path = of_device(device, f"net/{name}")
            seen = sysfs.link(f"{path}/subsystem"), read(sysfs, f"{path}/ifindex")
            if seen[1]:
                return seen[0], seen[1]
    return None, ""
