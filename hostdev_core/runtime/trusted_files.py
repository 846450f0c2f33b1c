"""Check that the state directory and its files are root's (or the caller's) alone, before they are read.

Hard links are not looked for: only those who may write the directory can make one.
"""

import os
import stat

from hostdev_core.errors import StateError

_WRITABLE = 0o022
_OTHERS = 0o077
_ADVICE = "Find out who made it, remove it, and try again"


def check_directory(path: str, *, closing: bool = False) -> None:
    """Raise StateError for a directory that others own, share or can exchange; OSError without one.

    Others may write its parent only where that has the sticky bit, like /tmp. With `closing`, other users'
    rights to look into it are taken away; they had none to change it.
    """
    status = os.lstat(path)
    wrong = _wrong(status, stat.S_IFDIR, "directory")
    parent = os.stat(path.rpartition("/")[0] or "/")
    if wrong is None and parent.st_mode & 0o002 and not parent.st_mode & stat.S_ISVTX:
        wrong = "can be exchanged by others, who may write the directory it is in"
    if wrong:
        raise StateError(
            f"the state directory {path} {wrong}; wanted a directory of root's, mode 0700. {_ADVICE}"
        )
    if closing and status.st_mode & _OTHERS:
        _close(path, status)


def _close(path: str, seen: os.stat_result) -> None:
    """Take the rights of others away from a directory."""
    mode = stat.S_IMODE(seen.st_mode)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.path.samestat(
                os.fstat(fd), seen
            ):  # the one that was checked, not another by its name
                os.fchmod(fd, mode & ~_OTHERS)
        finally:
            os.close(fd)
    except OSError as error:
        from shlex import quote

        raise StateError(
            f"others may look into the state directory {path} (mode {mode:04o}), and so lock what is in"
            f" it; it could not be closed: {error.strerror}. Do it: chmod 0700 {quote(path)}"
        ) from error
    import logging  # here: nearly no call needs it, and all would pay for the import

    log = logging.getLogger("hostdev")
    log.warning("others could look into %s (mode %04o), and lock what is in it; closed", path, mode)


def check_ledger(directory: str, path: str, limit: int, *, closing: bool = False) -> None:
    """Check the directory, the ledger in it, and the journal beside it, where one is.

    To be called before SQLite opens it, which would delete a journal beside an empty file. Raises
    StateError for what others own or share, for a file of more than `limit` bytes, or an empty one;
    FileNotFoundError without directory or ledger.
    """
    check_directory(directory, closing=closing)
    if _check_file(path, limit) == 0:
        from shlex import quote  # here, as below: for a message only

        raise StateError(
            f"{path} is empty, which hostdev never leaves it: it was cut off, or made by somebody else, and"
            " what it held is lost. It was left as it is. When nobody can bring it back, move it away:"
            f" mv {quote(path)} {quote(path + '.empty')}; then `hostdev status` names what is on a stub"
            " driver without a record, and its way home"
        )
    try:
        _check_file(f"{path}-journal", limit)
    except FileNotFoundError:
        pass


def _check_file(path: str, limit: int) -> int:
    """Raise StateError unless it is a trusted file of at most `limit` bytes; returns how many it has."""
    status = os.lstat(path)
    wrong = _wrong(status, stat.S_IFREG, "regular file")
    if wrong is None and status.st_size > limit:
        wrong = f"has {status.st_size} bytes; hostdev's own stays far below {limit}"
    if wrong:
        raise StateError(f"{path} {wrong}. It was left as it is. {_ADVICE}")
    return status.st_size


def _wrong(status: os.stat_result, wanted: int, kind: str) -> str | None:
    mode = status.st_mode
    if stat.S_IFMT(mode) != wanted:
        return "is a symbolic link" if stat.S_ISLNK(mode) else f"is no {kind}"
    if status.st_uid and status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if mode & _WRITABLE:
        return f"is writable by others (mode {stat.S_IMODE(mode):04o})"
    return None
