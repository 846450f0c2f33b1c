"""What the state directory must be before a word in it is believed: root's (or the caller's) alone.

A hard link is not looked for: only who may write the directory can make one.
"""

import os
import stat

from hostdev_core.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WRITABLE = 0o022
_ADVICE = "Find out who made it, remove it, and try again"


def check_directory(path: str) -> None:
    """Raise StateError for a directory that others own, share or can exchange; OSError without one.

    Its parent may be anybody's to add to, but only with the sticky bit, like /tmp.
    """
    status = os.lstat(path)
    wrong = _wrong(status, stat.S_ISDIR, "directory")
    parent = os.stat(os.path.dirname(path))
    if wrong is None and parent.st_mode & 0o002 and not parent.st_mode & stat.S_ISVTX:
        wrong = "can be exchanged by others, who may write the directory it is in"
    if wrong:
        raise StateError(
            f"the state directory {path} {wrong}; wanted a directory of root's, mode 0700. {_ADVICE}"
        )


def check_file(path: str, limit: int) -> None:
    """Raise StateError for a file that is none, others' or above `limit` bytes; OSError without one."""
    status = os.lstat(path)
    wrong = _wrong(status, stat.S_ISREG, "regular file")
    if wrong is None and status.st_size > limit:
        wrong = f"has {status.st_size} bytes; hostdev's own stays far below {limit}"
    if wrong:
        raise StateError(f"{path} {wrong}. It was left as it is. {_ADVICE}")


def _wrong(status: os.stat_result, is_kind: "Callable[[int], bool]", kind: str) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not is_kind(status.st_mode):
        return f"is no {kind}"
    if status.st_uid not in {0, os.geteuid()}:
        return f"belongs to user {status.st_uid}"
    if status.st_mode & _WRITABLE:
        return f"is writable by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None
