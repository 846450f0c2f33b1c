"""What becomes of a simulated machine as a whole: a reboot, virtual functions, who looks at it."""

from typing import Self

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated import checks
from hostdev_core.simulated.opened import OpenedMachine
from hostdev_core.simulated.reboot import reboot

NOBODY = 65534


class AdministeredMachine(OpenedMachine):
    """A machine, with what its administrator does to it."""

    def set_virtual_functions(self, address: str | PCIAddress, count: int) -> tuple[str, ...]:
        """Let a physical function have this many VFs, none for 0; their addresses, in order.

        A write to its `sriov_numvfs`, with the kernel's answers: KernelError on a driver that makes
        none (ENOENT), while there are others (EBUSY), above `sriov_totalvfs` (ERANGE). InputError for
        a device that was plugged in without `sriov_totalvfs`.
        """
        name = str(PCIAddress.parse(str(address)))
        folder = f"bus/pci/devices/{name}"
        if not self.sysfs.exists(f"{folder}/sriov_numvfs"):
            raise InputError(f"{name} has no virtual functions; plug it in with sriov_totalvfs=...")
        self.sysfs.write(f"{folder}/sriov_numvfs", str(count))
        links = [link for link in self.sysfs.names(folder) if link.startswith("virtfn")]
        links.sort(key=lambda link: int(link.removeprefix("virtfn")))
        found = (self.sysfs.link(f"{folder}/{link}") for link in links)
        return tuple(name for name in found if name is not None)

    def reboot(self) -> None:
        """Let the machine begin anew, with all that is plugged in on the driver that it came with.

        Gone are what sysfs was told (`driver_override`, ...), modules that were loaded since, virtual
        functions, faults that wait, xenstore and all of `/run`, the ledger too; `boot_id` and `btime`
        are others. No process of the machine outlives a reboot: open connections anew.
        """
        self.release()
        reboot(self._core)

    def as_user(self, uid: int = NOBODY) -> Self:
        """The same machine as a user sees it who is not root: whoever changes something may not.

        It is another object; sysfs, nodes, modules and the ledger refuse as they do on a real host.
        """
        if uid == 0:
            raise InputError("user 0 is root, who may everything; wanted another one")
        checks.check_number("user", uid, 1, 2**32 - 2)
        seen = type(self)(self.root, deadlines=self.deadlines)
        seen.become(uid)
        return seen

    def release(self) -> None:
        """Let all writes go on that hang now."""
        self._faults.release()
