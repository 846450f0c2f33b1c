"""A xenstore on disk: the store of a simulated dom0."""

import re
from typing import cast

from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.kernel.xenstore import Xenstore, refused
from hostdev_core.simulated.kernel.disk import Disk

_MEMORY = "xenstore.json"
# As xenstored's is_valid_nodename(); XENSTORE_ABS_PATH_MAX is 3072.
_PATH = re.compile(r"/|(?:/[-/@_0-9A-Za-z]*)?[-@_0-9A-Za-z]")
_HOME = "/local/domain/0/"  # relative paths are below the caller's own domain


class SimulatedXenstore(Xenstore):
    """The xenstore of one simulated host; StateError where there is none."""

    def __init__(self, host: Host, disk: Disk) -> None:
        super().__init__(host)
        self._disk = disk
        self._simulated = host

    def read(self, path: str) -> str | None:
        """Read the value of a node."""
        return self._nodes().get(self._checked(path))

    def children(self, path: str) -> list[str]:
        """List the names below a node; empty when it is not there."""
        prefix = self._checked(path).rstrip("/") + "/"
        below = (node.removeprefix(prefix) for node in self._nodes() if node.startswith(prefix))
        return sorted({name.partition("/")[0] for name in below if name})

    def _write(self, path: str, value: str) -> None:
        path = self._checked(path)
        with self._disk.kernel_lock():
            nodes = self._nodes()
            parts = path.split("/")
            # xenstored makes the missing parents, with empty values.
            for end in range(2, len(parts)):
                nodes.setdefault("/".join(parts[:end]), "")
            nodes[path] = value
            self._disk.remember(_MEMORY, nodes)

    def _remove(self, path: str) -> None:
        path = self._checked(path)
        if path == "/":
            raise refused(path, "EINVAL")
        with self._disk.kernel_lock():
            nodes = self._nodes()
            left = {
                node: value
                for node, value in nodes.items()
                if not (node + "/").startswith(path + "/")
            }
            self._disk.remember(_MEMORY, left)

    def _nodes(self) -> dict[str, str]:
        return cast("dict[str, str]", self._disk.recall(_MEMORY))

    def _checked(self, path: str) -> str:
        if not self._simulated.is_dom0:
            raise StateError(
                "xenstore does not answer: this host is no dom0; is xenstored running?"
            )
        if not _PATH.fullmatch(path) or "//" in path or len(path) > 3072:
            raise refused(path, "EINVAL")
        return path if path.startswith("/") else _HOME + path


def libxl_nodes(disk: Disk) -> dict[str, object]:
    """Read all nodes below /libxl that have a value."""
    nodes = disk.recall(_MEMORY)
    return {path: value for path, value in nodes.items() if value and path.startswith("/libxl/")}
