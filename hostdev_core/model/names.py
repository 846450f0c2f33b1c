"""Names of the kernel's: what may be a part of a path below /sys, or a word for modprobe(8)."""

import re
from typing import TypeGuard

PATH_PART = re.compile(r"(?!\.{1,2}\Z)[^/\x00]{1,255}")
_STUB = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.A)


def is_path_part(value: object) -> TypeGuard[str]:
    """Whether it can be the name of a file: one part of a path, and no other directory.

    Every kernel driver's is, whatever else it has in it: it is a directory in sysfs.
    """
    return isinstance(value, str) and PATH_PART.fullmatch(value) is not None


def is_stub_name(value: object) -> TypeGuard[str]:
    """Whether a stub driver, or the module that brings it, may have this name.

    It becomes a part of a path below /sys, a word for modprobe(8), and part of messages.
    """
    return isinstance(value, str) and _STUB.fullmatch(value) is not None
