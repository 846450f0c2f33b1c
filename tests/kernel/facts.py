"""What the kernel answers to raw writes below /sys: one list for the real and the simulated one.

Each fact is a function of a Sysfs, a PCI device (address) and the host driver that the device is
bound to, without any driver_override, when it begins and when it ends. vfio-pci and pci-stub are
loaded. It returns what it saw: "ok" or the errno's name for a write, the text for a read. Those of a
locked device need only its name, those of sysctls the text files of the host.

Above 300 lines: it is a list, and being one list for both kernels is its purpose.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from hostdev_core.errors import KernelError
from hostdev_core.kernel.files import Texts
from hostdev_core.kernel.sysfs import Sysfs

Scenario = Callable[..., list[object]]
PATIENCE, SOON = 60.0, 1.0
"""Seconds for what answers on a busy machine, and for what is known to wait."""


class Fact(NamedTuple):
    """A scenario and what it must return: `expected`, and from the Linux `since` on `newer`."""

    name: str
    run: Scenario
    expected: list[object]
    since: tuple[int, int] | None = None
    newer: tuple[object, ...] = ()

    def expected_here(self) -> list[object]:
        """What it must return on the kernel that runs."""
        major, minor = (int(word) for word in os.uname().release.split(".")[:2])
        is_newer = self.since is not None and (major, minor) >= self.since
        return [*self.newer] if is_newer else self.expected


FACTS: list[Fact] = []  # any network card with a host driver, a reset method and an IOMMU group
SRIOV_FACTS: list[Fact] = []  # a PF whose driver can make at least two VFs; none are there
XEN_FACTS: list[Fact] = []  # in a dom0, with pciback loaded and no slot on its list
HIDDEN_FACTS: list[Fact] = []  # where an empty directory of another file system hides the sysfs
LOCKED_USB_FACTS: list[Fact] = []  # a USB device with all three texts, while its lock is held
LOCKED_PCI_FACTS: list[Fact] = []  # any PCI device while its lock is held
SYSCTL_FACTS: list[Fact] = []  # the text files of a host, and the path of its boot id


def fact(
    *expected: object,
    of: list[Fact] = FACTS,
    since: tuple[int, int] | None = None,
    newer: tuple[object, ...] = (),
) -> Callable[[Scenario], Scenario]:
    """Enter a scenario in a list, with what it must return, and what on newer kernels."""

    def enter(run: Scenario) -> Scenario:
        of.append(Fact(run.__name__, run, list(expected), since, newer))
        return run

    return enter


def write(sysfs: Sysfs, path: str, value: str) -> str:
    """Write and say "ok" or the errno's name."""
    try:
        sysfs.write(path, value)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def read(sysfs: Sysfs, path: str) -> str | None:
    """Read and return the text, or the errno's name."""
    try:
        return sysfs.read(path)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]


def seen(sysfs: Sysfs, path: str) -> str:
    """Whether a part of the sysfs is there ("ok"), or the errno's name."""
    try:
        sysfs.check_seen(path)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def of_device(device: str, name: str) -> str:
    return f"bus/pci/devices/{device}/{name}"


def of_driver(driver: str, name: str) -> str:
    return f"bus/pci/drivers/{driver}/{name}"


def bound(sysfs: Sysfs, device: str) -> str | None:
    return sysfs.link(of_device(device, "driver"))


def send_home(sysfs: Sysfs, device: str, driver: str) -> str:
    """Unset the override and bind the host driver."""
    write(sysfs, of_device(device, "driver/unbind"), device)
    write(sysfs, of_device(device, "driver_override"), "\n")
    return write(sysfs, of_driver(driver, "bind"), device)


@fact(
    "(null)",
    "ok",
    "foo",
    "ok",
    "bar",
    "ok",
    "a",
    "ok",
    "a",
    "ok",
    "(null)",
    "ok",
    "x y ",
    "ok",
    "(null)",
)
def override_is_kept_up_to_the_first_newline(
    sysfs: Sysfs, device: str, driver: str
) -> list[object]:
    del driver
    path = of_device(device, "driver_override")
    seen: list[object] = [read(sysfs, path)]
    for value in ("foo\n", "bar", "a\nb\n", "", "\0", "x y ", "\n"):
        seen += [write(sysfs, path, value), read(sysfs, path)]
    return seen


@fact("EINVAL", "(null)", "ok", 4094, "ok", "(null)")
def override_has_a_longest_text(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    path = of_device(device, "driver_override")
    seen: list[object] = [write(sysfs, path, "x" * 4095), read(sysfs, path)]
    seen += [write(sysfs, path, "x" * 4094), len(read(sysfs, path) or "")]
    return [*seen, write(sysfs, path, "\nfoo"), read(sysfs, path)]


@fact("EBUSY", "ENODEV", "ENODEV", "ENODEV", "ENODEV", "ok", True)
def bind_of_a_bound_or_unknown_device(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    path = of_driver(driver, "bind")
    values = (device, "0000:7f:1f.7", "nonsense", f" {device}", f"{device}\n\n", "")
    seen: list[object] = [write(sysfs, path, value) for value in values]
    return [*seen, bound(sysfs, device) == driver]


@fact("ENODEV", "ENODEV", "ok", None, "ENODEV", "ENOENT", "ok", True, True)
def unbind_and_bind_by_name(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    seen: list[object] = [
        write(sysfs, of_driver("pci-stub", "unbind"), device),
        write(sysfs, of_driver(driver, "unbind"), "0000:7f:1f.7"),
        write(sysfs, of_driver(driver, "unbind"), f"{device}\n"),
        bound(sysfs, device),
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_device(device, "driver/unbind"), device),
        write(sysfs, of_driver(driver, "bind"), f"{device}\n"),
    ]
    in_driver = sysfs.exists(of_driver(driver, device))
    return [*seen, bound(sysfs, device) == driver, in_driver]


@fact("ok", "ENODEV", "ENODEV", None, "ok", "ok", "vfio-pci", 1, "EBUSY", "ENODEV", "ok", 0, "ok")
def stubs_need_an_override(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    return [
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver("vfio-pci", "bind"), device),
        write(sysfs, of_driver("pci-stub", "bind"), device),
        bound(sysfs, device),
        write(sysfs, of_device(device, "driver_override"), "vfio-pci"),
        write(sysfs, of_driver("vfio-pci", "bind"), device),
        bound(sysfs, device),
        len(sysfs.names(of_device(device, "vfio-dev"))),
        write(sysfs, of_driver("vfio-pci", "bind"), device),
        write(sysfs, of_driver(driver, "bind"), device),
        write(sysfs, of_device(device, "driver/unbind"), device),
        len(sysfs.names(of_device(device, "vfio-dev"))),
        send_home(sysfs, device, driver),
    ]


@fact("ok", "ok", "ENODEV", "ok", None, "ok", "ok", True)
def override_that_names_no_driver(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    override = of_device(device, "driver_override")
    return [
        write(sysfs, override, "nobody"),
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver(driver, "bind"), device),
        write(sysfs, "bus/pci/drivers_probe", device),
        bound(sysfs, device),
        write(sysfs, override, "\0"),
        write(sysfs, of_driver(driver, "bind"), device),
        bound(sysfs, device) == driver,
    ]


@fact("ok", "ENODEV", "ok", "ok", True, "ok", "ok", "ok", "pci-stub", "ok")
def drivers_probe_takes_who_matches(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    probe = "bus/pci/drivers_probe"
    return [
        write(sysfs, probe, device),
        write(sysfs, probe, "0000:7f:1f.7"),
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, probe, f"{device}\n"),
        bound(sysfs, device) == driver,
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_device(device, "driver_override"), "pci-stub"),
        write(sysfs, probe, device),
        bound(sysfs, device),
        send_home(sysfs, device, driver),
    ]


@fact("ok", True, "ok", "ok", "pci-stub", "EEXIST", "ok", "ENODEV", "pci-stub", "ok")
def new_id_seizes_what_has_no_driver(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    names = ("vendor", "device")
    ids = " ".join((sysfs.read(of_device(device, name)) or "")[2:] for name in names)
    seen: list[object] = [
        write(sysfs, of_driver("pci-stub", "new_id"), ids),
        bound(sysfs, device) == driver,
        write(sysfs, of_driver("pci-stub", "remove_id"), ids),
        write(sysfs, of_driver(driver, "unbind"), device),
    ]
    write(sysfs, of_driver("pci-stub", "new_id"), ids)
    seen += [
        bound(sysfs, device),
        write(sysfs, of_driver("pci-stub", "new_id"), ids),
        write(sysfs, of_driver("pci-stub", "remove_id"), ids),
        write(sysfs, of_driver("pci-stub", "remove_id"), ids),
        bound(sysfs, device),
    ]
    return [*seen, send_home(sysfs, device, driver)]


@fact("EINVAL", "EINVAL", "EINVAL", "EINVAL", "EEXIST", "ENODEV")
def ids_that_are_refused(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    names = ("vendor", "device")
    own = " ".join((sysfs.read(of_device(device, name)) or "")[2:] for name in names)
    return [
        write(sysfs, of_driver("pci-stub", "new_id"), "8086"),
        write(sysfs, of_driver("pci-stub", "new_id"), "no ids"),
        write(sysfs, of_driver("pci-stub", "new_id"), "\n"),
        write(sysfs, of_driver("pci-stub", "remove_id"), "8086"),
        write(sysfs, of_driver(driver, "new_id"), own),
        write(sysfs, of_driver("pci-stub", "remove_id"), own),
    ]


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


@fact("ERANGE", "EINVAL", "EINVAL", "ok", "2", 2, "ok", "EBUSY", "ok", "0", 0, of=SRIOV_FACTS)
def numvfs_makes_and_removes(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    path = of_device(device, "sriov_numvfs")
    seen: list[object] = [write(sysfs, path, value) for value in ("9999", "x", "-1", "2\n")]
    seen += [read(sysfs, path), len(_virtual(sysfs, device))]
    seen += [write(sysfs, path, value) for value in ("2", "1", "0")]
    return [*seen, read(sysfs, path), len(_virtual(sysfs, device))]


@fact("ok", True, True, "ok", "2", "ENOENT", "ENOENT", "ok", "EBUSY", "ok", "ok", of=SRIOV_FACTS)
def a_pf_without_its_driver_keeps_its_vfs(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    path = of_device(device, "sriov_numvfs")
    seen: list[object] = [write(sysfs, path, "2")]
    groups = {sysfs.link(of_device(name, "iommu_group")) for name in _virtual(sysfs, device)}
    owners = {sysfs.link(of_device(name, "physfn")) for name in _virtual(sysfs, device)}
    return [
        *seen,
        len(groups) == 2,
        owners == {device},
        write(sysfs, of_driver(driver, "unbind"), device),
        read(sysfs, path),
        write(sysfs, path, "1"),
        write(sysfs, path, "0"),
        write(sysfs, of_device(device, "driver_override"), "vfio-pci"),
        write(sysfs, of_driver("vfio-pci", "bind"), device),
        send_home(sysfs, device, driver),
        write(sysfs, path, "0"),
    ]


def _virtual(sysfs: Sysfs, device: str) -> list[str]:
    names = sysfs.names(f"bus/pci/devices/{device}")
    links = (sysfs.link(of_device(device, name)) for name in names if name.startswith("virtfn"))
    return [link for link in links if link]


@fact("ok", "ENODEV", "ok", "ok", True, "ok", True, "ok", False, "ENOENT", "ok", of=XEN_FACTS)
def a_slot_outlives_the_binding(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    def listed() -> bool:
        return device in (read(sysfs, of_driver("pciback", "slots")) or "").split()

    return [
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver("pciback", "bind"), device),
        write(sysfs, of_device(device, "driver_override"), "pciback"),
        write(sysfs, of_driver("pciback", "bind"), device),
        listed(),
        write(sysfs, of_driver("pciback", "unbind"), device),
        listed(),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        listed(),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        send_home(sysfs, device, driver),
    ]


@fact("ok", "ok", [1], True, "ok", "ok", "pciback", "ok", "pciback", "EINVAL", "ok", of=XEN_FACTS)
def a_slot_lets_pciback_seize(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    slots = of_driver("pciback", "slots")
    return [
        write(sysfs, of_driver("pciback", "new_slot"), f"{device}\n"),
        write(sysfs, of_driver("pciback", "new_slot"), device),
        [(read(sysfs, slots) or "").split().count(device)],
        bound(sysfs, device) == driver,
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver("pciback", "bind"), device),
        bound(sysfs, device),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        bound(sysfs, device),
        write(sysfs, of_driver("pciback", "new_slot"), "nonsense"),
        send_home(sysfs, device, driver),
    ]


@fact(None, None, None, None, False, [], 0, "ENOENT", "ENOENT", of=HIDDEN_FACTS)
def what_is_hidden_looks_as_if_it_were_gone(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    return [
        read(sysfs, of_device(device, "driver_override")),
        bound(sysfs, device),
        sysfs.inode(of_device(device, "")),
        sysfs.real_path(of_device(device, "iommu_group")),
        sysfs.exists(of_device(device, "driver")),
        sysfs.names("bus/pci/devices"),
        sysfs.links("bus/pci/devices"),
        write(sysfs, of_device(device, "driver/unbind"), device),
        write(sysfs, of_driver(driver, "bind"), device),
    ]


@fact("ENOENT", "ENOENT", "ENOENT", of=HIDDEN_FACTS)
def stat_tells_that_it_is_hidden(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    return [seen(sysfs, path) for path in ("bus", "bus/pci/devices", of_device(device, ""))]


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


def answer(sysfs: Sysfs, paths: list[str], seconds: float) -> list[str]:
    """Which of these attributes are read within so many seconds; the readers of the others wait on."""
    done: list[str] = []

    def look(path: str) -> None:
        sysfs.read(path)
        done.append(path.rpartition("/")[2])

    threads = [threading.Thread(target=look, args=[path], daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return sorted(done)


def of_usb(port: str, *names: str) -> list[str]:
    return [f"bus/usb/devices/{port}/{name}" for name in names]


@fact(
    "bDeviceClass",
    "busnum",
    "dev",
    "devnum",
    "devpath",
    "idProduct",
    "idVendor",
    of=LOCKED_USB_FACTS,
)
def a_locked_usb_device_tells_who_it_is(sysfs: Sysfs, port: str) -> list[object]:
    names = ("idVendor", "idProduct", "busnum", "devnum", "devpath", "dev", "bDeviceClass")
    return [*answer(sysfs, of_usb(port, *names), PATIENCE)]


@fact(of=LOCKED_USB_FACTS)
def a_locked_usb_device_does_not_tell_its_texts(sysfs: Sysfs, port: str) -> list[object]:
    names = ("serial", "product", "manufacturer", "bConfigurationValue")
    return [*answer(sysfs, of_usb(port, *names), SOON)]


@fact("usb", True, True, of=LOCKED_USB_FACTS)
def a_locked_usb_device_has_its_links_and_its_interfaces(sysfs: Sysfs, port: str) -> list[object]:
    device = f"bus/usb/devices/{port}"
    inner = [name for name in sysfs.names(device) if name.startswith(f"{port}:")]
    return [
        sysfs.link(f"{device}/driver"),
        bool(inner),
        all(sysfs.read(f"{device}/{name}/bInterfaceClass") for name in inner),
    ]


@fact("class", "device", "modalias", "vendor", of=LOCKED_PCI_FACTS)
def a_locked_pci_device_tells_who_it_is(sysfs: Sysfs, device: str) -> list[object]:
    names = ("vendor", "device", "class", "modalias")
    return [*answer(sysfs, [of_device(device, name) for name in names], PATIENCE)]


@fact(of=LOCKED_PCI_FACTS, since=(6, 12), newer=("driver_override",))
def a_locked_pci_device_does_not_tell_its_override(sysfs: Sysfs, device: str) -> list[object]:
    """Newer kernels do (6.12.117; when it began is not known): they read it without the device's lock."""
    return [*answer(sysfs, [of_device(device, "driver_override")], SOON)]


@fact(37, 37, 37, "ENOMEM", "ENOMEM", of=SYSCTL_FACTS)
def a_sysctl_is_not_read_in_one_piece_of_megabytes(texts: Texts, boot_id: str) -> list[object]:
    def length(size: int) -> object:
        try:
            return len(texts.read_once(boot_id, size))
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    return [length(size) for size in (1 << 12, 1 << 16, (4 << 20) - 1, 4 << 20, 16 << 20)]


@fact(8, True, True, of=SYSCTL_FACTS)
def a_sysctl_is_read_in_pieces(texts: Texts, boot_id: str) -> list[object]:
    part, whole = texts.read_once(boot_id, 8), texts.fetch(boot_id, 16 << 20)
    return [len(part), whole.startswith(part), len(whole) == 37]
