"""Faults for an Injector of the harness."""

import errno
import os
import signal


def fail(what: str) -> None:
    """Let the kernel answer with EIO."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def die(what: str) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
