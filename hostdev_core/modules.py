"""Kernel modules: what is loaded, what an alias names, what is blacklisted, loading one."""

import fnmatch
import glob
import os
import re
import subprocess

from hostdev_core.door import Door
from hostdev_core.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.host import Host

# In the order in which modprobe reads them: modprobe.d(5).
CONFIGURATION = (
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
)
_VFIO_ALIAS = re.compile(r"alias (vfio_pci:\S+) ([A-Za-z0-9_-]+)", re.A)


class Modules(Door):
    """The modules of one host's running kernel."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._aliases: tuple[tuple[int, int, int], list[tuple[str, str]]] | None = None

    def is_loaded(self, module: str) -> bool:
        """Whether the module is in the kernel, loaded or built in with parameters."""
        return self._host.sysfs.exists(f"module/{_underscored(module)}")

    def drivers(self, module: str) -> tuple[str, ...]:
        """The PCI drivers a loaded module brought; its name and theirs may differ altogether."""
        names = self._host.sysfs.names(f"module/{_underscored(module)}/drivers")
        return tuple(name.removeprefix("pci:") for name in names if name.startswith("pci:"))

    def module_of(self, driver: str) -> str | None:
        """The module a PCI driver comes from; None when it is built in or not there."""
        return self._host.sysfs.link(f"bus/pci/drivers/{driver}/module")

    def vfio_variant(self, modalias: str) -> str | None:
        """The module of the most specific `vfio_pci:` alias for a device; None without one.

        The kernel writes `vfio_pci:` aliases for drivers whose ids are override-only
        (PCI_DRIVER_OVERRIDE_DEVICE_VFIO, Documentation/driver-api/vfio.rst).
        """
        wanted = "vfio_" + modalias
        best: tuple[int, str] | None = None
        for pattern, module in self._vfio_aliases():
            score = len(pattern) - pattern.count("*")
            if fnmatch.fnmatchcase(wanted, pattern) and (best is None or score > best[0]):
                best = score, module
        return best[1] if best else None

    def _vfio_aliases(self) -> list[tuple[str, str]]:
        """Pattern and module of the `vfio_pci:` lines of modules.alias: a megabyte, read again only
        when it has changed.
        """
        path = self._host.path(f"lib/modules/{self._host.kernel_release}/modules.alias")
        try:
            status = os.stat(path)
        except OSError:
            return []
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if self._aliases is None or self._aliases[0] != stamp:
            matches = map(_VFIO_ALIAS.fullmatch, self._lines("modules.alias"))
            self._aliases = stamp, [(match[1], match[2]) for match in matches if match]
        return self._aliases[1]

    def exists(self, module: str) -> bool:
        """Whether the kernel has it: loaded, built in, or on disk for this release."""
        name = _underscored(module)
        if self.is_loaded(module):
            return True
        known = self._lines("modules.dep") + self._lines("modules.builtin")
        return any(
            _underscored(os.path.basename(line.split(":")[0]).split(".")[0]) == name
            for line in known
        )

    def blacklisted(self, module: str) -> str | None:
        """The file that blacklists or disables a module; None when nothing does."""
        name = _underscored(module)
        words = re.compile(
            r"\s*(?:blacklist\s+(\S+)\s*$|install\s+(\S+)\s+(?:\S*/)?(?:false|true)\b)"
        )
        for path, line in self._configuration():
            match = words.match(line)
            if match and _underscored(match[1] or match[2]) == name:
                return path
        return None

    def options(self, module: str) -> str:
        """All `options` words that modprobe.d gives a module."""
        name = _underscored(module)
        words = (line.split(maxsplit=2) for _, line in self._configuration())
        return " ".join(
            w[2] for w in words if len(w) == 3 and w[0] == "options" and _underscored(w[1]) == name
        )

    def load(self, module: str, *, lock: int | None = None) -> None:
        """Load a module with modprobe(8).

        `lock` is the descriptor of the operation's lock: while modprobe runs, the operation lives.
        Raises KernelError with modprobe's own words. The deadline is kept by whoever runs this in
        a lane: a modprobe that is stuck in the kernel can be neither killed nor waited for.
        """
        try:
            with self.changing(f"load {module}"):
                self._load(module, lock)
        except OSError as error:
            raise not_loaded(module, error.strerror or str(error), error.errno) from error

    def _load(self, module: str, lock: int | None) -> None:
        command = ["modprobe", "--", module]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                pass_fds=() if lock is None else (lock,),
            )
        except FileNotFoundError:
            raise not_loaded(module, "modprobe is not installed; install kmod") from None
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or "").strip() or f"exit code {error.returncode}"
            raise not_loaded(module, reason) from None

    def _lines(self, name: str) -> list[str]:
        text = self._host.read_text(f"lib/modules/{self._host.kernel_release}/{name}")
        return [] if text is None else text.splitlines()

    def _configuration(self) -> list[tuple[str, str]]:
        seen: set[str] = set()
        lines: list[tuple[str, str]] = []
        for folder in CONFIGURATION:
            for path in sorted(
                glob.glob(os.path.join(glob.escape(self._host.path(folder)), "*.conf"))
            ):
                if (
                    os.path.basename(path) not in seen
                ):  # an earlier folder's file hides a later one's
                    seen.add(os.path.basename(path))
                    lines += (
                        (path, line)
                        for line in (
                            self._host.read_text(os.path.relpath(path, self._host.root)) or ""
                        ).splitlines()
                    )
        return lines


def not_loaded(module: str, reason: str, errno: int | None = None) -> KernelError:
    """The error for a module that does not come."""
    return KernelError(
        f"cannot load module {module}: {reason}", path="modprobe", value=module, errno=errno
    )


def _underscored(module: str) -> str:
    return module.replace("-", "_")
