"""Identify an open file without waiting for its file system.

stat(2) of a file on a dead NFS server never returns; statx(2) with AT_STATX_DONT_SYNC answers from the
cache, and the identity of a node never changes. Python before 3.15 has no statx, the C library has.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from functools import cache

_AT_FDCWD, _DONT_SYNC, _TYPE = -100, 0x4000, 0x1  # linux/fcntl.h, linux/stat.h
_SIZE = 256
_MODE, _INODE, _NUMBERS = struct.Struct("=H"), struct.Struct("=Q"), struct.Struct("=4I")


@cache  # a process has one C library
def _statx() -> Callable[..., int]:
    try:
        return ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


def known_status(path: str) -> tuple[int, int, int, int]:
    """Return a file's st_mode, st_ino, st_rdev and st_dev, as far as the kernel has them cached.

    OSError as of stat(2), ENOSYS where there is no statx(2).
    """
    answer = bytearray(_SIZE)
    place = (ctypes.c_char * _SIZE).from_buffer(answer)
    if _statx()(_AT_FDCWD, os.fsencode(path), _DONT_SYNC, _TYPE, place):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    # Offsets of struct statx (linux/stat.h): stx_mode, stx_ino, stx_rdev_major and the three behind it.
    (mode,), (inode,) = _MODE.unpack_from(answer, 28), _INODE.unpack_from(answer, 32)
    major, minor, on_major, on_minor = _NUMBERS.unpack_from(answer, 128)
    return mode, inode, os.makedev(major, minor), os.makedev(on_major, on_minor)
