"""Overrides, binding, unbinding, probing and dynamic ids: the driver core's answers."""

from hostdev_core.kernel.sysfs import Sysfs

from .fact import fact
from .raw import bound, of_device, of_driver, read, send_home, write


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
