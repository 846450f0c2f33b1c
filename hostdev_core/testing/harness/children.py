"""Forked processes that make calls: a fault may kill them."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process that ends with it, silently; return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _end_with(work)
    return pid


def _end_with(work: Callable[[], object]) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        work()
    finally:
        os._exit(0)


def answer_of(work: Callable[[int], object]) -> str:
    """Run `work` in a child; return what it, and all that it leaves behind, writes to its argument."""
    reader, writer = os.pipe()
    pid = in_child(lambda: work(writer))
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):  # ends when its worker has ended, too
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    return said.decode()
