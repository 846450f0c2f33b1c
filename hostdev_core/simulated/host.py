"""SimulatedHost: a machine in a directory, for tests, demonstrations and the test driver."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress, USBSelector
from hostdev_core.runtime.deadlines import Deadlines
from hostdev_core.simulated.administered import AdministeredMachine
from hostdev_core.simulated.faults import Fault
from hostdev_core.simulated.kernel import board, checks, machine, pci, pciback, plugging, usb, vfio
from hostdev_core.simulated.kernel.device import find_device, hold_lock
from hostdev_core.simulated.kernel.drivers import Driver
from hostdev_core.simulated.opened import machine_of


class SimulatedHost(AdministeredMachine):
    """A directory that looks and behaves like a machine; all its state is on disk.

    Several processes and threads may use one at the same time, each through its own object.
    """

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        dom0: bool = False,
        iommu: bool = True,
        kernel_release: str = machine.RELEASE,
        deadlines: Deadlines | None = None,
    ) -> "SimulatedHost":
        """Make a machine in a directory that is not there or empty; InputError otherwise.

        `dom0`: Xen's control domain, with pciback and xenstore, without IOMMU groups. `iommu`:
        whether devices are in IOMMU groups. `kernel_release`: from 6.6 on VFIO's devices have nodes
        of their own (`dev/vfio/devices/vfio0`).
        """
        root = os.path.abspath(path)
        machine.check_empty(root)
        checks.check_form("kernel release", kernel_release, checks.RELEASE, "6.1.0-18-amd64")
        drivers = [d._replace(loaded=dom0) if d.name == pciback.NAME else d for d in machine.OWN]
        machine.make_machine(root, drivers, kernel_release, dom0=dom0, iommu=iommu)
        board.make_board(root, kernel_release, dom0=dom0, iommu=iommu and not dom0)
        return cls(root, deadlines=deadlines)

    @classmethod
    def replay(
        cls,
        file: str | os.PathLike[str],
        path: str | os.PathLike[str] | None = None,
        *,
        deadlines: Deadlines | None = None,
    ) -> "SimulatedHost":
        """Make the machine that a file of `capture` describes, in a directory as for `create`.

        Without `path` in a new temporary one, which the caller removes. InputError, with the place
        in the file, when it does not describe a machine.
        """
        # Imported here: most hosts are no replayed ones.
        from hostdev_core.simulated.captures.replay import replay

        return cls(replay(os.fspath(file), path), deadlines=deadlines)

    @staticmethod
    def capture(sysfs: str | os.PathLike[str] = "/sys", *, serials: bool = False) -> str:
        """Describe the machine whose sysfs this is, a real or a simulated one: the text of a file.

        Serial numbers, and network interfaces named by their MAC, are left out unless `serials`.
        Nothing is changed and no device woken up; an attribute that the kernel does not answer within two
        seconds is left out. Needs no rights.
        """
        from hostdev_core.simulated.captures.capture import describe  # here, for the same reason

        return str(describe(*machine_of(sysfs), serials=serials))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, deadlines: Deadlines | None = None
    ) -> "SimulatedHost":
        """Open the machine that was made in a directory; InputError when none was."""
        return cls(os.path.abspath(path), deadlines=deadlines)

    def add_driver(
        self,
        name: str,
        *,
        module: str | None = None,
        loaded: bool = True,
        ids: Sequence[str] = (),
        blacklisted: bool = False,
        variant_for: str | Sequence[str] | None = None,
        managed_dma: bool = False,
        probe_errno: int | None = None,
        gives_vfio: bool = False,
    ) -> None:
        """Add a PCI driver, or change the one of that name.

        `ids` ("8086:10d3", stars allowed) are what it matches. `module` brings it: without one it
        is built in; with `loaded=False` it comes with `modules.load`. `variant_for`: a VFIO variant
        driver for one id or several. `managed_dma`: it may be bound in a group that a virtual machine
        owns. `probe_errno`: the errno of each of its probes (517 is a deferred probe). `gives_vfio`:
        it hands virtual functions to guests itself, as VFIO devices (SR-IOV vGPUs).
        """
        if variant_for is not None:
            ids = (variant_for,) if isinstance(variant_for, str) else variant_for
        driver = Driver(
            name,
            module.replace("-", "_") if module else None,
            loaded,
            0,
            ids=tuple(text.lower() for text in ids),
            override_only=variant_for is not None,
            vfio=variant_for is not None,
            managed_dma=managed_dma or variant_for is not None,
            probe_errno=probe_errno,
            gives_vfio=gives_vfio,
        )
        checks.check_driver(driver)
        machine.register(self._core, driver)
        if blacklisted:
            machine.blacklist(self._disk, driver.module or name)

    def add_pci(
        self,
        address: str,
        *,
        id: str = "8086:10d3",
        class_: str = "020000",
        kernel_driver: str | None = None,
        iommu_group: int | None = None,
        subsystem: str = "0000:0000",
        revision: str = "00",
        driver_override: str | None = None,
        power_control: str = "on",
        header_type: int = 0,
        resets: bool | str = True,
        parent: str | None = None,
        sriov_totalvfs: int = 0,
        physfn: str | None = None,
        net: str | Sequence[str] = (),
        numa_node: int = -1,
        block: str | Sequence[str] = (),
        drm: str | Sequence[str] = (),
        sound: str | Sequence[str] = (),
    ) -> PCIAddress:
        """Plug a PCI function in; again at the same address it is another device (inode).

        It is bound to `kernel_driver` (made known when it is not), unless a slot of pciback
        seizes it. Without `iommu_group` it gets a group of its own, numbered from 100. `parent`
        is the address of its bridge, `resets` its reset methods ("flr bus"), `physfn` the PF whose
        VF it is, `sriov_totalvfs` how many VFs there may be. InputError for a value out of form.

        While a host driver is bound the card has these class devices, in sysfs and in /dev: `net`
        interfaces ("eth0"); `block` a disk and its partitions ("nvme0n1", "nvme0n1p1"); `drm`
        ("card0", "renderD128"); `sound` ("controlC0", "pcmC0D0p"). A test writes their users itself:
        `flags` and `master` of an interface and `holders` of a disk in sysfs, mounts into
        `path("proc/self/mountinfo")`, with the numbers that their `dev` has.
        """
        parsed = PCIAddress.parse(address)
        card = pci.Card(
            address=str(parsed),
            id=id.lower(),
            class_=class_.lower(),
            subsystem=subsystem.lower(),
            revision=revision.lower(),
            iommu_group=self._group(iommu_group),
            driver_override=driver_override,
            power_control=power_control,
            header_type=header_type,
            resets=pci.reset_methods(resets),
            parent=parent,
            sriov_totalvfs=sriov_totalvfs,
            physfn=physfn,
            net=checks.names_of(net),
            numa_node=numa_node,
            block=checks.names_of(block),
            drm=checks.names_of(drm),
            sound=checks.names_of(sound),
        )
        plugging.plug_card(self._core, card, kernel_driver)
        return parsed

    def add_usb(
        self,
        port: str,
        *,
        id: str = "046d:c077",
        bus: int | None = None,
        device: int | None = None,
        serial: str | None = None,
        product: str | None = None,
        manufacturer: str | None = None,
        controller: str | None = None,
        kernel_driver: str | None = "usbhid",
        interfaces: Mapping[str, str | None] | None = None,
        hub: bool = False,
    ) -> str:
        """Plug a USB device in at a port ("1-1.5") and return the port.

        Hubs on the way, the root hub and the controller (an xHCI at 0000:00:14.0 without
        `controller`; "platform" for one that is not on PCI) are added where they are missing.
        `device` is the next number of the bus. It has one interface, on `kernel_driver`, unless
        `interfaces` says otherwise ({"1.0": "usbhid", "1.1": None}).
        """
        USBSelector(port=port).checked()
        driver = "hub" if hub else kernel_driver
        number = bus if bus is not None else int(port.partition("-")[0])
        new = usb.Plug(
            port=port,
            id=id.lower(),
            bus=number,
            device=device if device is not None else usb.next_number(self._disk, port),
            serial=serial,
            product=product,
            manufacturer=manufacturer,
            controller=plugging.controller_of(self._core, number, controller),
            interfaces={"1.0": driver} if interfaces is None else {**interfaces},
            hub=hub,
        )
        plugging.plug_usb(self._core, new)
        return port

    def unplug(self, name: str | PCIAddress) -> None:
        """Pull a device out: it is gone at once, with all devices below it, even while it is in use."""
        if usb.unplug(self._disk, str(name)):
            return
        device = find_device(self._disk, str(name))
        if device is None:
            raise InputError(f"{name} is not plugged in")
        group = device.group  # before: the link goes with the device
        pci.unplug(self._disk, device)
        if group:
            vfio.settle_group(self._disk, self._core.drivers, group)

    def unload_module(self, module: str) -> None:
        """Unload a module, with its drivers; their devices are left without one."""
        machine.unload_module(self._core, module.replace("-", "_"))

    def on_write(
        self,
        path_glob: str,
        *,
        errno: int | None = None,
        delay: float | None = None,
        hang: bool = False,
        count: int = 1,
        effect: bool = True,
        value: str | None = None,
        crash: bool = False,
    ) -> None:
        """Ask for a fault of the next `count` writes to a path below /sys (fnmatch) and value.

        They fail with `errno`, take `delay` seconds, hang until `release()`, or succeed without
        any effect. The first that matches is used; a path matches as written or resolved. A bind
        hangs in the driver's probe, an unbind in its remove, with the device's lock held. Loading
        a module counts as a write of its name to "modprobe", VFIO's trial of a group as one to "vfio",
        a change of the ledger as one to "ledger" (ENOSPC: its disk is full).

        With `crash` the kernel faults in it: the thread that writes ends without running any more code,
        and the device stays locked (`release()` lets the threads go on that wait for that).
        """
        checks.check_fault(errno, delay, count)
        self._faults.add(Fault(path_glob, value, errno, delay, hang, effect, count, crash))

    def hanging(self) -> list[tuple[str, str]]:
        """List path and value of the writes that hang now, in any process."""
        return self._faults.hanging()

    def wait_hanging(self, count: int = 1, timeout: float = 60.0) -> list[tuple[str, str]]:
        """Wait until this many writes hang and return them; TimeoutError when they do not."""
        return self._faults.wait_hanging(count, timeout)

    def hold(
        self, address: str | PCIAddress, *, device: bool = True
    ) -> AbstractContextManager[None]:
        """Hold a device on a VFIO driver, or a USB device, as a running virtual machine does.

        Meanwhile its group node cannot be opened again, and a host driver cannot be bound in its
        group; with `device`, unbinding it waits until it is let go. OSError: EBUSY when the group
        is held, ENOENT without its node, EPERM while a member is on a host driver. Of a USB device,
        by its port, the interfaces are claimed: on `usbfs`, and afterwards as they were.
        """
        if ":" not in str(address):
            return usb.claimed(self._disk, str(address))
        name = str(PCIAddress.parse(str(address)))
        return vfio.held(self._disk, self._core.drivers, name, device)

    def hold_lock(self, name: str | PCIAddress) -> AbstractContextManager[None]:
        """Hold a PCI or USB device's lock meanwhile, as a reset that hangs in the kernel does."""
        return hold_lock(self._disk, str(name))

    def _group(self, wanted: int | None) -> int | None:
        if not self._disk.recall(machine.MACHINE)["iommu"]:
            return None
        return pci.OWN_GROUP if wanted is None else wanted
