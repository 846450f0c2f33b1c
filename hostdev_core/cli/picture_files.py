"""Write pictures into files: whole or not at all, and over nothing but an older picture."""

import os
import stat
from contextlib import suppress

from hostdev_core.cli.output import emit
from hostdev_core.errors import InputError

_HEAD = 1000  # bytes; the sign stands in the first lines


def check_free(path: str, sign: str) -> None:
    """Raise InputError for a path where a picture may not be written.

    A file may be replaced that has the sign of one: whoever draws a machine again means the new picture. Any
    other file was meant by somebody else, and a name that is mistyped must not destroy it.
    """
    if path == "-" or not os.path.lexists(path):
        return
    real = os.path.realpath(path)
    try:
        if stat.S_ISREG(os.lstat(real).st_mode):
            with open(real, "rb") as file:
                if sign.encode() in file.read(_HEAD):
                    return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name another file") from error
    raise InputError(
        f"{path} is there already, and is no picture of this command; remove it first, or name"
        " another file"
    )


def write(path: str, text: str) -> None:
    """Write a picture: to standard output for "-", else beside the file first, which is then replaced.

    The link that a path may be stays one. InputError where that is not possible.
    """
    if path == "-":
        emit(text.removesuffix("\n"))
        return
    real = os.path.realpath(path)
    beside = os.path.join(os.path.dirname(real), f".{os.path.basename(real)}.{os.getpid()}")
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, real)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.unlink(beside)
