"""A host in a directory: the look and the behaviour of a machine, without the machine."""

from hostdev_core.simulated.host import SimulatedHost
from hostdev_core.simulated.sample import make_sample

__all__ = ["SimulatedHost", "make_sample"]
