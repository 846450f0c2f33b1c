"""The lab: a Debian kernel and Xen, unpacked below build/kernel-lab, and bytecode for what the guest runs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable
from pathlib import Path

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


def fill() -> Path:
    """Return the lab's folder, filled: anew when it is missing or when its scripts have changed.

    Also checks each time that the needed packages are installed, and brings the bytecode up to date.
    Raises LabError with the output of the step that failed.
    """
    lab = lab_dir()
    wanted = _scripts_hash()
    with _only_one(lab.with_name(lab.name + ".lock")):
        _run([str(SCRIPTS / "install.sh")])
        if not _has_stamp(lab, wanted):
            new = lab.with_name(lab.name + ".new")
            shutil.rmtree(new, ignore_errors=True)
            _run([str(SCRIPTS / "setup.sh"), str(new)])
            (new / "stamp").write_text(wanted)
            # A session that still runs from the old folder keeps it until the next time: moved, not emptied.
            for old in lab.parent.glob(f"{lab.name}.old-*"):
                shutil.rmtree(old)
            if lab.exists():
                lab.rename(lab.with_name(f"{lab.name}.old-{os.getpid()}"))
            new.rename(lab)
        _compile_all()
    return lab


def interpreter_paths() -> tuple[Path, ...]:
    """What the guest must see to run this very Python on this checkout."""
    paths = [CHECKOUT, lab_dir(), bytecode_dir(), Path(sys.prefix), Path(sys.base_prefix)]
    return tuple(dict.fromkeys(path.absolute() for path in paths))


def _scripts_hash() -> str:
    digest = hashlib.sha256()
    for script in sorted(SCRIPTS.iterdir()):
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


def _compile_all() -> None:
    """Compile the project, the environment and the library: an emulated machine takes seconds over it.

    The project each time; the rest, thousands of files, when a package came or went.
    """
    packages = [Path(path) for path in sys.path if path.endswith("-packages")]
    installed = sorted(
        info.name for path in packages if path.is_dir() for info in path.glob("*.dist-info")
    )
    state = "\n".join([sys.version, sys.prefix, *installed])
    stamp = bytecode_dir() / f"stamp-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}"
    _compile(SOURCES, jobs=1)
    if not stamp.exists() or stamp.read_text() != state:
        _compile([*packages, Path(os.__file__).parent], jobs=0)
        stamp.write_text(state)


def _compile(folders: Iterable[Path], *, jobs: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(bytecode_dir())
    names = [str(path) for path in folders if path.is_dir()]
    bytecode_dir().mkdir(parents=True, exist_ok=True)
    # No check: a file that does not compile (a template, another Python's) is not our concern.
    command = [sys.executable, "-m", "compileall", "-qq", f"-j{jobs}", "-x", NOT_COMPILED, *names]
    subprocess.run(command, env=env, check=False, stdin=subprocess.DEVNULL)


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
