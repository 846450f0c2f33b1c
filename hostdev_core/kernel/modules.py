"""Look up kernel modules and their aliases, ask modprobe about them, and load them.

Files of modules are read in their usual place; where they are not there, modprobe is asked, which knows.
"""

import errno
import fnmatch
import os
import re
import shutil
import stat
import subprocess

from hostdev_core.errors import KernelError
from hostdev_core.kernel.modprobe import Configuration, underscored
from hostdev_core.kernel.watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from hostdev_core.kernel.files import Machine

PATIENCE = 20.0  # seconds for a question to modprobe, which reads some files
_FILES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_PCI_ALIAS = re.compile(r"alias (pci:\S+) ([A-Za-z0-9_-]+)", re.A)
_MODULE = re.compile(r"[A-Za-z0-9_-]+", re.A)
_VFIO_ALIAS = re.compile(r"alias (vfio_pci:\S+) ([A-Za-z0-9_-]+)", re.A)


class Modules(Watched):
    """The modules of one host's running kernel."""

    def __init__(self, host: "Machine") -> None:
        self._host = host
        self._aliases: tuple[tuple[int, int, int], list[tuple[str, str]]] | None = None

    def is_loaded(self, module: str) -> bool:
        """Whether the module is in the kernel, loaded or built in with parameters."""
        return self._host.sysfs.exists(f"module/{underscored(module)}")

    def drivers(self, module: str) -> tuple[str, ...]:
        """List the PCI drivers of a loaded module; its name and theirs may differ altogether."""
        names = self._host.sysfs.names(f"module/{underscored(module)}/drivers")
        return tuple(name.removeprefix("pci:") for name in names if name.startswith("pci:"))

    def module_of(self, driver: str) -> str | None:
        """Find the module of a PCI driver; None when it is built in or not there."""
        return self._host.sysfs.link(f"bus/pci/drivers/{driver}/module")

    def vfio_variant(self, modalias: str) -> str | None:
        """Find the module of the most specific `vfio_pci:` alias for a device; None without one.

        KernelError when modules.alias is there and cannot be read.

        The kernel writes `vfio_pci:` aliases for drivers whose ids are override-only
        (PCI_DRIVER_OVERRIDE_DEVICE_VFIO, Documentation/driver-api/vfio.rst).
        """
        wanted = "vfio_" + modalias
        aliases = self._vfio_aliases()
        if aliases is None:
            return self._resolve(wanted)
        best: tuple[int, str] | None = None
        for pattern, module in aliases:
            score = len(pattern) - pattern.count("*")
            if fnmatch.fnmatchcase(wanted, pattern) and (best is None or score > best[0]):
                best = score, module
        return best[1] if best else None

    def unknown_variants(self) -> str | None:
        """Describe why `vfio_variant` may have missed a driver; None when it saw all aliases.

        KernelError as there.
        """
        if self._vfio_aliases() is not None or self._knows("vfio_pci")[0]:
            return None
        return (
            f"there is no file {self._path('modules.alias')}, and modprobe does not know the place"
        )

    def _vfio_aliases(self) -> list[tuple[str, str]] | None:
        """Read pattern and module of the `vfio_pci:` lines of modules.alias; None when there is none.

        KernelError when it cannot be read. It has a megabyte, and is read again only when it has changed.
        """
        try:
            status = os.stat(self._path("modules.alias"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            path, why = self._path("modules.alias"), error.strerror
            raise KernelError(
                f"cannot read {path}: {why}", path=path, value="", errno=error.errno
            ) from error
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if self._aliases is None or self._aliases[0] != stamp:
            lines = self._lines("modules.alias") if stat.S_ISREG(status.st_mode) else None
            if lines is None:
                return None
            matches = map(_VFIO_ALIAS.fullmatch, lines)
            self._aliases = stamp, [(match[1], match[2]) for match in matches if match]
        return self._aliases[1]

    def _resolve(self, alias: str) -> str | None:
        """Ask modprobe for an alias's module; of several not vfio-pci, which takes any device."""
        names = self.candidates(alias)
        return next((name for name in names if name != "vfio_pci"), names[0] if names else None)

    def candidates(self, modalias: str) -> list[str]:
        """List the modules that modprobe names for a device's modalias."""
        try:
            done, said = self._ask("--resolve-alias", modalias)
        except OSError:
            return []
        words = said.split() if done else []
        return list(dict.fromkeys(underscored(word) for word in words if _MODULE.fullmatch(word)))

    def exists(self, module: str) -> bool:
        """Whether the kernel has it, or may have it; False only where modprobe says that there is none.

        KernelError as `find`.
        """
        return self.find(module)[0] is not False

    def find(self, module: str) -> tuple[bool | None, str]:
        """Tell whether a module is loaded, built in, or found by modprobe; with modprobe's output.

        None when modprobe could not be asked. It is a process, and started only where the module is
        not in the kernel and not in the usual files; KernelError for one of these that cannot be read.
        """
        if self.is_loaded(module):
            return True, ""
        name = underscored(module)
        known = (self._lines("modules.dep") or []) + (self._lines("modules.builtin") or [])
        if any(_module_of(line) == name for line in known):
            return True, ""
        return self._knows(module)

    def _knows(self, module: str) -> tuple[bool | None, str]:
        try:
            done, said = self._ask("--show-depends", module)
        except OSError as error:
            return None, f"modprobe cannot be asked ({error.strerror or error})"
        return (True if done else False if "not found" in said else None), " ".join(said.split())

    @property
    def _program(self) -> str:
        """The path of modprobe: in PATH or the usual folders, which a user's PATH may lack, or the kernel's.

        FileNotFoundError where none of them has one that this user may run.
        """
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        own = (self._host.glance_text("proc/sys/kernel/modprobe") or "").strip()
        its = own if os.path.basename(own) == "modprobe" else "modprobe"
        if program := shutil.which("modprobe", path=path) or shutil.which(its):
            return program
        raise FileNotFoundError(errno.ENOENT, "there is none; the package kmod brings it")

    def _ask(self, question: str, name: str) -> tuple[bool, str]:
        """Ask modprobe, which loads nothing: whether it succeeded, and its output; OSError without one."""
        command = [self._program, question, "--", name]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no answer within {PATIENCE:g} s") from None
        return not done.returncode, done.stderr if done.returncode else done.stdout

    def brought_along(self, module: str) -> frozenset[str] | None:
        """Find the modules that are loaded before or after it, but those there already; None if unknown.

        KernelError when a file that tells of them is there and cannot be read.
        """
        name = underscored(module)
        lines = self._lines("modules.dep") or []
        found = [line.partition(":")[2] for line in lines if _module_of(line) == name]
        if found:
            names = {_module_of(path) for line in found for path in line.split()}
        elif any(_module_of(line) == name for line in self._lines("modules.builtin") or ()):
            names = set[str]()
        else:
            known, said = self._knows(module)
            if not known:
                return None
            names = {_module_of(path) for path in said.split() if path.endswith(_FILES)}
        written = self._lines("modules.softdep") or ()
        names |= {underscored(word) for word in self.configuration.soft(module, written)}
        return frozenset(each for each in names if each != name and not self.is_loaded(each))

    def pci_aliases(self, modules: "Collection[str]") -> dict[str, list[str]] | None:
        """Read the patterns of PCI devices that these modules drive; None without a modules.alias.

        KernelError when it is there and cannot be read.
        """
        lines = self._lines("modules.alias")
        if lines is None:
            return None
        found: dict[str, list[str]] = {}
        for match in filter(None, map(_PCI_ALIAS.fullmatch, lines)):
            if (name := underscored(match[2])) in modules:
                found.setdefault(name, []).append(match[1])
        return found

    @property
    def configuration(self) -> Configuration:
        """The configuration of modprobe, read now; KernelError when part of it cannot be read."""
        return Configuration(self._host)

    def blacklisted(self, module: str) -> str | None:
        """Find the place where a module is blacklisted or disabled; None when it is not."""
        configuration = self.configuration  # each use of the property reads it anew
        return configuration.disabled(module) or configuration.blacklisted(module)

    def options(self, module: str) -> str:
        """Join all options that modprobe.d and the kernel's command line give a module."""
        return " ".join(word for line in self.configuration.options(module) for word in line.words)

    def load(self, module: str, *, lock: int | None = None) -> None:
        """Load a module with modprobe(8).

        `lock` is the descriptor of the operation's lock: while modprobe runs, the operation lives.
        Raises KernelError with modprobe's own message. No deadline is kept here: the caller runs this in a
        lane, since a modprobe that hangs in the kernel can be neither killed nor waited for.
        """
        try:
            with self.changing(f"load {module}"):
                self._load(module, lock)
        except OSError as error:
            raise not_loaded(module, error.strerror or str(error), error.errno) from error

    def _load(self, module: str, lock: int | None) -> None:
        command = [self._program, "--", module]
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

    def _path(self, name: str) -> str:
        return self._host.path(f"lib/modules/{self._host.kernel_release}/{name}")

    def _lines(self, name: str) -> list[str] | None:
        text = self._host.read_text(f"lib/modules/{self._host.kernel_release}/{name}")
        return None if text is None else text.splitlines()


def not_loaded(module: str, reason: str, errno: int | None = None) -> KernelError:
    """Make the error for a module that cannot be loaded."""
    return KernelError(
        f"cannot load module {module}: {reason}", path="modprobe", value=module, errno=errno
    )


def _module_of(line: str) -> str:
    """Take the module's name from a line of modules.dep or modules.builtin."""
    return underscored(os.path.basename(line.split(":")[0]).split(".")[0])
