"""Put a text into a file in one step."""

import os
from contextlib import suppress


def replace(path: str, text: str, *, mode: int | None = None) -> None:
    """Put a text into a file: a reader sees the former one or this, never half.

    The new file is made beside the old one, by a hidden name, and renamed. `mode` is its own whatever the
    umask, which counts without it. OSError where that is not possible; the file is as it was then.
    """
    folder, name = os.path.split(os.path.abspath(path))
    fresh = os.path.join(folder, f".{name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        os.unlink(fresh)  # of one that was killed, and had this number
    with open(fresh, "x", encoding="utf-8", errors="replace") as file:
        try:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.replace(fresh, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh)
            raise
