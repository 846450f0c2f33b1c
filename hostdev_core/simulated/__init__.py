"""A host in a directory: the look and the behaviour of a machine, without the machine.

This package has the host as tests see it: what they plug in and break, and its stand-ins for sysfs,
modules, udev, xenstore and the ledger. captures/ turns a machine into a document and back; kernel/ acts on
the files, and imports neither.
"""

from hostdev_core.simulated.host import SimulatedHost
from hostdev_core.simulated.sample import make_sample

__all__ = ["SimulatedHost", "make_sample"]
