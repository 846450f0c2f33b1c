"""Starting a new interpreter that makes a call, as one forked from several threads must not."""

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import spawn as settings
from typing import cast

from hostdev_core import __version__
from hostdev_core.errors import StateError
from hostdev_core.runtime.forks import SHORT, above_streams

# Nothing is imported before the path is ours: the current directory may be anybody's.
PROGRAM = """
import sys
sys.path[:] = {}
from hostdev_core.worker.main import main
main({!r}, {}, {})
"""


def spawn(errand: bytes, given: Sequence[int]) -> int:
    """Start it in a session of its own, with this errand and these descriptors only; its pid."""
    data = above_streams(os.memfd_create("hostdev errand"))
    try:
        with open(data, "wb", closefd=False) as file:
            file.write(errand)
        return _start(_interpreter(), data, given)
    finally:
        os.close(data)


def _start(interpreter: str, data: int, given: Sequence[int]) -> int:
    flags = cast("list[str]", subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # as multiprocessing does
    program = PROGRAM.format(ascii(sys.path), __version__, data, list(given))
    command = [interpreter, *flags, "-P", "-c", program]
    try:
        process = subprocess.Popen(
            command, pass_fds=(data, *given), start_new_session=True, restore_signals=False
        )
    except OSError as error:
        if error.errno in SHORT:
            raise
        raise StateError(
            f"the worker cannot be started: {error}; nothing was changed. multiprocessing.set_executable()"
            " names another interpreter"
        ) from error
    process.returncode = 0  # it is collected by its pid, wherever it lingers
    return process.pid


def _interpreter() -> str:
    """Python, as it is for multiprocessing."""
    name = settings.get_executable()
    if not name or (getattr(sys, "frozen", False) and name == sys.executable):
        raise StateError(
            "the worker cannot be started: this Python is a part of another program, and does not know"
            " its interpreter (sys.executable); nothing was changed. multiprocessing.set_executable()"
            " names one, or open the connection without worker=True"
        )
    return os.fsdecode(name)
