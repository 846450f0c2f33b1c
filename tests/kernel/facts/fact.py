"""A fact: raw writes below /sys, and what the kernel answers; the lists that each is entered in."""

import os
from collections.abc import Callable
from typing import NamedTuple

Scenario = Callable[..., list[object]]


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
