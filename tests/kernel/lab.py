"""The lab below build/kernel-lab: Debian kernels and Xen, a Debian 13, bytecode for what the guests run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "lab"
SOURCES = tuple(CHECKOUT / name for name in ("hostdev_core", "drivers", "plugins"))
# Of no use in the guest, and most of what there is to compile.
NOT_COMPILED = (
    r"/(tests?|idlelib|lib2to3|tkinter|ensurepip|pip|setuptools|mypy|mypyc|pyright|nodeenv)/"
)


class LabError(Exception):
    """The lab cannot be filled; the message says which package or step is at fault."""


def lab_dir() -> Path:
    """Where the lab stands: HOSTDEV_LAB_DIR, or build/kernel-lab of the checkout."""
    return Path(os.environ.get("HOSTDEV_LAB_DIR") or CHECKOUT / "build" / "kernel-lab").absolute()


def bytecode_dir() -> Path:
    """The bytecode prefix of the guest (PYTHONPYCACHEPREFIX)."""
    return lab_dir().with_name(lab_dir().name + "-pycache")


class System(NamedTuple):
    """What a guest boots: the kernel and Xen of a suite of Debian, and the programs that it runs there.

    Without a suite that is Debian 12, with the machine's own programs; the others have those of Debian 13.
    """

    name: str
    title: str
    suite: str = ""

    @property
    def root(self) -> Path | None:
        """The Debian 13 beside the lab, as the guest's / and for its QEMU; None for the machine's own /."""
        return lab_dir().with_name(lab_dir().name + "-trixie") if self.suite else None

    @property
    def python(self) -> str:
        """The interpreter that runs the checkout and its environment there."""
        return "/usr/bin/python3" if self.suite else sys.executable

    def outside(self, command: Sequence[str]) -> list[str]:
        """The command that runs a program of this system outside, on the files of the machine."""
        if self.root is None:
            return [*command]
        own = 'mount --bind "$0/usr" /usr && exec "$@"'
        return ["unshare", "--mount", "/bin/sh", "-c", own, str(self.root), *command]


DEBIAN12 = System("debian12", "Debian 12")
SYSTEMS = (
    DEBIAN12,
    System("debian13", "Debian 13", "trixie"),
    System("backports", "Debian 13 with backports", "trixie-backports"),
)


def fill(system: System = DEBIAN12) -> Path:
    """Return the folder of a system, filled: anew when it is missing or when its scripts have changed.

    Also checks each time that the needed packages are installed, and brings the bytecode up to date.
    Raises LabError with the output of the step that failed.
    """
    folder, root = lab_dir(), system.root
    with _only_one(folder.with_name(f"{folder.name}-packages.lock")):
        _run([str(SCRIPTS / "install.sh")])
    with _only_one((root or folder).with_name(f"{(root or folder).name}.lock")):
        if root is not None:
            _fill(root, SCRIPTS / "trixie.sh", scripts=[SCRIPTS / "trixie.sh"])
            folder = folder.with_name(f"{folder.name}-{system.name}")
        words = [] if root is None else [str(root), system.suite]
        _fill(folder, SCRIPTS / "setup.sh", *words, scripts=SCRIPTS.iterdir())
        _compile_all(system)
    return folder


def fill_iommufd(system: System) -> Path:
    """Return a folder of modules for the kernel of a filled system with a root: what Debian leaves out of it.

    The file `order` in it has their names, in the order in which to load them.
    """
    root = system.root
    assert root is not None
    folder = root.with_name(f"{lab_dir().name}-{system.name}-iommufd")
    scripts = [SCRIPTS / name for name in ("iommufd.sh", "packages.sh")]
    with _only_one(root.with_name(f"{root.name}.lock")):
        _fill(folder, scripts[0], str(root), system.suite, scripts=scripts)
    return folder


def _fill(folder: Path, script: Path, *words: str, scripts: Iterable[Path]) -> None:
    """Let a script make a folder, unless these scripts have made it as they are."""
    wanted = _hash(scripts)
    if _has_stamp(folder, wanted):
        return
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    _run([str(script), str(new), *words])
    (new / "stamp").write_text(wanted)
    # A session that still runs from the old folder keeps it until the next time: moved, not emptied.
    for old in folder.parent.glob(f"{folder.name}.old-*"):
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.old-{os.getpid()}"))
    new.rename(folder)


def visible_paths(system: System) -> tuple[Path, ...]:
    """What the guest must see of the machine to run this checkout with its environment."""
    paths = [CHECKOUT, lab_dir(), bytecode_dir(), Path(sys.prefix)]
    if not system.suite:
        paths.append(Path(sys.base_prefix))
    return tuple(dict.fromkeys(path.absolute() for path in paths))


def import_paths(system: System) -> tuple[Path, ...]:
    """Where the guest's Python finds the checkout and its environment, which is in Python alone."""
    paths = [CHECKOUT, CHECKOUT / "drivers"]
    if system.suite:
        library = Path(os.__file__).parent
        found = (Path(path) for path in sys.path)
        paths += [
            path for path in found if path.is_dir() and path not in (library, *library.iterdir())
        ]
    return tuple(dict.fromkeys(paths))


def _hash(scripts: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for script in sorted(scripts):
        digest.update(f"{script.name}\0{len(script.read_bytes())}\0".encode() + script.read_bytes())
    return digest.hexdigest()


def _has_stamp(lab: Path, wanted: str) -> bool:
    with contextlib.suppress(OSError):
        return (lab / "stamp").read_text() == wanted
    return False


@contextlib.contextmanager
def _only_one(lock: Path) -> Generator[None]:
    """Hold LOCK: two test runs that start together fill the lab once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile_all(system: System) -> None:
    """Compile the project, the environment and the library: an emulated machine takes seconds over it.

    The project each time; the rest, thousands of files, when a package came or went.
    """
    packages = [Path(path) for path in sys.path if path.endswith("-packages")]
    library = Path(os.__file__).parent if system.root is None else Path("/usr/lib/python3.13")
    installed = sorted(
        info.name for path in packages if path.is_dir() for info in path.glob("*.dist-info")
    )
    state = "\n".join([sys.version, sys.prefix, *installed])
    whose = hashlib.sha256(f"{sys.prefix} {system.python}".encode()).hexdigest()[:16]
    stamp = bytecode_dir() / f"stamp-{whose}"
    _compile(system, SOURCES, jobs=1)
    if not stamp.exists() or stamp.read_text() != state:
        _compile(system, [*packages, library], jobs=0)
        stamp.write_text(state)


def _compile(system: System, folders: Iterable[Path], *, jobs: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(bytecode_dir())
    names = [str(path) for path in folders]
    bytecode_dir().mkdir(parents=True, exist_ok=True)
    # No check: a file that does not compile (a template, another Python's) is not our concern.
    command = [system.python, "-m", "compileall", "-qq", f"-j{jobs}", "-x", NOT_COMPILED, *names]
    subprocess.run(system.outside(command), env=env, check=False, stdin=subprocess.DEVNULL)


def _run(command: list[str]) -> None:
    env = {**os.environ, "PYTHON": sys.executable}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise LabError(f"the kernel lab: {command[0]}: {error}") from error
    if done.returncode:
        output = (done.stdout + done.stderr).strip()
        raise LabError(
            f"the kernel lab: {' '.join(command)} exited with {done.returncode}:\n{output}"
        )
