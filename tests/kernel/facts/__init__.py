"""What the kernel answers to raw writes below /sys: one list for the real and the simulated one.

Each fact is a function of a Sysfs, a PCI device (address) and the host driver that the device is
bound to, without any driver_override, when it begins and when it ends. vfio-pci and pci-stub are
loaded. It returns what it saw: "ok" or the errno's name for a write, the text for a read. Those of a
locked device need only its name, those of sysctls the text files of the host.

`fact.py` has the lists and what enters a fact in them, `raw.py` the reads and writes; the other
modules have the facts themselves, a subject each.
"""

from . import attributes as attributes  # each of these enters its facts in the lists
from . import binding as binding
from . import hidden as hidden
from . import locked as locked
from . import pciback as pciback
from . import sriov as sriov
from . import sysctls as sysctls
from .fact import (
    FACTS,
    HIDDEN_FACTS,
    LOCKED_PCI_FACTS,
    LOCKED_USB_FACTS,
    SRIOV_FACTS,
    SYSCTL_FACTS,
    XEN_FACTS,
    Fact,
)

__all__ = [
    "FACTS",
    "HIDDEN_FACTS",
    "LOCKED_PCI_FACTS",
    "LOCKED_USB_FACTS",
    "SRIOV_FACTS",
    "SYSCTL_FACTS",
    "XEN_FACTS",
    "Fact",
]
