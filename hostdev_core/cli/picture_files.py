"""Write pictures into files: whole or not at all, and over nothing but an older picture."""

import os
import stat

from hostdev_core.cli.output import emit
from hostdev_core.errors import InputError
from hostdev_core.kernel.replaced import replace

_HEAD = 1000  # bytes; the sign stands in the first lines
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def check_free(path: str, sign: str) -> None:
    """Raise InputError for a path where a picture may not be written.

    A file may be replaced that has the sign of one: whoever draws a machine again means the new picture. Any
    other file was meant by somebody else, and a name that is mistyped must not destroy it. A link is never
    followed: in a folder of all, it may be anybody's.
    """
    if path == "-" or not os.path.lexists(path):
        return
    try:
        is_picture = stat.S_ISREG(os.lstat(path).st_mode) and sign.encode() in _head(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name another file") from error
    if not is_picture:
        raise InputError(
            f"{path} is there already, and is no picture of this command; remove it first, or name"
            " another file"
        )


def _head(path: str) -> bytes:
    with open(os.open(path, _OPEN), "rb") as file:
        return file.read(_HEAD)


def write(path: str, text: str) -> None:
    """Write a picture: to standard output for "-", else beside the file first, which is then replaced.

    InputError where that is not possible; nothing is left then.
    """
    if path == "-":
        emit(text.removesuffix("\n"))
        return
    try:
        replace(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
