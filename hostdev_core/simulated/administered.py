"""A simulated machine under its administrator: virtual functions, reboots, and users who are not root."""

from typing import Self

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated.kernel import checks
from hostdev_core.simulated.opened import OpenedMachine
from hostdev_core.simulated.reboot import reboot

NOBODY = 65534  # the uid of nobody(5)


class AdministeredMachine(OpenedMachine):
    """A machine that an administrator changes as a whole."""

    def set_virtual_functions(self, address: str | PCIAddress, count: int) -> tuple[str, ...]:
        """Set the number of a physical function's VFs; return their addresses, in order.

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
        """Boot the machine anew, with each plugged device on the driver that it came with.

        Gone are writes to sysfs (`driver_override`, ...), modules that were loaded since, virtual
        functions, faults that wait, xenstore and all of `/run`, the ledger too; `boot_id` and `btime`
        are new ones. No process of the machine outlives a reboot: open connections anew.
        """
        self.release()
        reboot(self._core)

    def as_user(self, uid: int = NOBODY) -> Self:
        """Open the same machine as a user who is not root, and may change nothing.

        It is another object; sysfs, nodes, modules and the ledger refuse as they do on a real host.
        """
        if uid == 0:
            raise InputError("user 0 is root, who may everything; wanted another one")
        checks.check_number("user", uid, 1, 2**32 - 2)
        seen = type(self)(self.root, deadlines=self.deadlines)
        seen.become(uid)
        return seen

    def release(self) -> None:
        """Let all writes that hang now go on."""
        self._faults.release()
