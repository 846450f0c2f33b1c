"""Tell whether the ledger that a process sees is the host's.

A container with the host's devices has a /run of its own, and would lend devices that the host has lent.
Nothing here raises: the reason why it cannot be known is returned in words.
"""

import os

from hostdev_core.kernel.processes import is_initial_namespace

Place = tuple[int, int] | None


def find_doubt(directory: str, proc: str = "/proc") -> str | None:
    """Why this path may be another place for the host than for this process; None when it is the same.

    The host is what process 1 sees, and only in the initial pid namespace that is the host's init.
    """
    try:
        is_initial = is_initial_namespace(proc)
    except OSError as error:
        return f"{proc} does not tell which pid namespace this is ({error.strerror})"
    if not is_initial:
        return "this is a container with processes of its own, which does not see the host's /run"
    same: bool | None
    try:
        same = _is_same(directory, f"{proc}/1/root{directory}")
    except PermissionError:
        same = _is_same_mount(directory, proc)
    except OSError as error:
        return f"the host's {directory} cannot be looked at ({error.strerror})"
    if same is None:
        return f"{proc}/1 does not tell what the host has mounted at {directory}"
    return None if same else f"{directory} is not the host's here, but one of this mount namespace"


def _is_same(here: str, there: str) -> bool:
    """Whether both are the same directory, or, while one does not exist, are in the same one."""
    places = _place(here), _place(there)
    parents = (_place(os.path.dirname(path)) for path in (here, there))
    around = next(parents) == next(parents) is not None
    return places[0] == places[1] if None not in places else around


def _place(path: str) -> Place:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _is_same_mount(directory: str, proc: str) -> bool | None:
    """Whether the path is the same place of the same file system for process 1; None: unknown.

    For users who may not look below /proc/1/root: all may read mountinfo.
    """
    mine, its = (_place_by_mounts(directory, f"{proc}/{who}/mountinfo") for who in ("self", "1"))
    return None if mine is None or its is None else mine == its


def _place_by_mounts(directory: str, path: str) -> tuple[str, str] | None:
    """A path's device, and the path on it, by mountinfo (proc_pid_mountinfo(5)); None when unknown."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    longest, found = 0, None
    for _, _, device, root, place, *_ in rows:
        around = place.rstrip("/") + "/"
        if f"{directory}/".startswith(around) and len(around) >= longest:
            longest = len(around)  # of two at one place the later one lies on top
            found = device, os.path.normpath(f"{root.rstrip('/')}/{directory[longest:]}")
    return found
