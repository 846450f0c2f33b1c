"""Which GPU the host's console is on."""

from collections.abc import Iterable, Iterator

from hostdev_core import Device, Host, PCIDevice
from hostdev_guard.chains import Use, functions_below, node_at, nodes_at
from hostdev_guard.rules import CONSOLE

DISPLAY = "03"  # the PCI class
PCIBACK = frozenset({"pciback", "xen-pciback"})
FRAMEBUFFER = "class/graphics/fb0"  # the one that the kernel puts its console on
CONSOLES = "class/vtconsole"


class Console:
    """The virtual terminals of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.framebuffer = node_at(host, FRAMEBUFFER)

    def uses(self, devices: Iterable[Device]) -> Iterator[Use]:
        """What shows the console now; of these devices also the one that the firmware chose for it."""
        shown = self._shown()
        if not shown:
            return
        if self.framebuffer is not None:
            yield Use(CONSOLE, "the console is on", (self.framebuffer,))
        for device in devices:
            path = f"bus/pci/devices/{device.name}"
            if isinstance(device, PCIDevice) and self._is_firmwares(device, path, shown):
                nodes = tuple(nodes_at(self.host, [path]))
                yield Use(CONSOLE, "the firmware's console (boot_vga) is on", nodes)

    def _shown(self) -> list[str]:
        """What the consoles are shown by ("frame buffer device"); where the kernel does not say,
        they are taken to be shown.
        """
        read, names = self.host.sysfs.read, self.host.sysfs.names(CONSOLES)
        if not names:
            return ["unknown"]
        bound = [name for name in names if read(f"{CONSOLES}/{name}/bind") == "1"]
        drivers = [read(f"{CONSOLES}/{name}/name") or "" for name in bound]
        return [driver for driver in drivers if "dummy" not in driver]

    def _is_firmwares(self, gpu: PCIDevice, path: str, shown: list[str]) -> bool:
        """Whether the GPU is the firmware's choice, and still the host's.

        One without a driver shows the console where that is the firmware's own framebuffer, or text.
        """
        if not gpu.class_code.startswith(DISPLAY):
            return False
        if self.host.sysfs.read(f"{path}/boot_vga") != "1":
            return False
        if gpu.kernel_driver is not None:
            return gpu.blocks_group and gpu.kernel_driver not in PCIBACK
        if any("VGA" in driver for driver in shown):
            return True
        fb = self.framebuffer
        return fb is not None and not any(functions_below(self.host, fb))
