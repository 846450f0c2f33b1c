"""The command's code as user 65534, by one who may not even enter the checkout, or Python's own folder.

    python as_nobody.py WORD...

All of hostdev is imported, and what is installed beside it is read, before root's rights are gone.
"""

import importlib
import os
import pkgutil
import sqlite3  # noqa: F401  # the command loads it when it first looks into the ledger
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, distributions
from pathlib import Path

import hostdev_core.cli
import hostdev_libxl
import hostdev_qemu
import hostdev_test
from hostdev_core import Registry

NOBODY = 65534
ALL = DistributionFinder.Context()
PACKAGES = (hostdev_core, hostdev_qemu, hostdev_libxl, hostdev_test)


class Remembered(Distribution):
    """What is installed under a name, without a file of it being opened again."""

    def __init__(self, dist: Distribution) -> None:
        files = ("METADATA", "entry_points.txt")
        self._texts = {name: dist.read_text(name) for name in files}

    def read_text(self, filename: str) -> str | None:
        return self._texts.get(filename)

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        raise FileNotFoundError(path)


class Memory(DistributionFinder):
    """Knows all that was installed when it was made."""

    def __init__(self) -> None:
        self._all = [Remembered(dist) for dist in distributions()]

    def find_spec(self, *_: object) -> None:
        """It finds no modules."""

    def find_distributions(
        self, context: DistributionFinder.Context = ALL
    ) -> Iterable[Distribution]:
        return [dist for dist in self._all if context.name in {None, dist.name}]


def load_all() -> None:
    """Import what the command may import while it runs, the parts of others included."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__") and ".testing" not in module.name:
                importlib.import_module(module.name)
    Registry.from_entry_points()
    for dist in distributions():  # loads what importlib.metadata needs to read one
        dist.metadata  # noqa: B018


def main() -> int:
    load_all()
    sys.meta_path.insert(0, Memory())
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return hostdev_core.cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
