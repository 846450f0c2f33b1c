"""Start a new interpreter for a call, since a process of several threads must not be forked for it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import spawn as multiprocessing_spawn
from typing import cast

from hostdev_core import __version__
from hostdev_core.errors import StateError
from hostdev_core.runtime.forks import SHORTAGES, above_streams

# The path is set before anything is imported: the current directory may be anybody's.
PROGRAM = """
import sys
sys.path[:] = {}
from hostdev_core.worker.main import main
main({!r}, {}, {})
"""


def spawn(pickled_call: bytes, fds: Sequence[int]) -> int:
    """Start an interpreter in a session of its own with these descriptors only; return its pid.

    It reads the pickled `CallData` from a file in memory.
    """
    data = above_streams(os.memfd_create("hostdev call"))
    try:
        with open(data, "wb", closefd=False) as file:
            file.write(pickled_call)
        return _start(_interpreter(), data, fds)
    finally:
        os.close(data)


def _start(interpreter: str, data: int, fds: Sequence[int]) -> int:
    flags = cast("list[str]", subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # as multiprocessing does
    program = PROGRAM.format(ascii(sys.path), __version__, data, list(fds))
    command = [interpreter, *flags, "-P", "-c", program]
    try:
        process = subprocess.Popen(
            command, pass_fds=(data, *fds), start_new_session=True, restore_signals=False
        )
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        raise StateError(
            f"the worker cannot be started: {error}; nothing was changed. multiprocessing.set_executable()"
            " names another interpreter"
        ) from error
    process.returncode = 0  # Popen is not to wait for it: run.py collects it by its pid
    return process.pid


def _interpreter() -> str:
    """The path of the Python that multiprocessing would start; StateError when it is not known."""
    name = multiprocessing_spawn.get_executable()
    if not name or (getattr(sys, "frozen", False) and name == sys.executable):
        raise StateError(
            "the worker cannot be started: this Python is a part of another program, and does not know"
            " its interpreter (sys.executable); nothing was changed. multiprocessing.set_executable()"
            " names one, or open the connection without worker=True"
        )
    return os.fsdecode(name)
