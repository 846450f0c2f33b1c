"""Look in another process, which is left behind when it hangs in the kernel."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from hostdev_core.runtime.forks import explaining_shortages

PATIENCE = 2.0  # seconds


def ask_in_subprocess(question: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Call `question` in a forked process; its answer (JSON-able), empty when it fails or takes longer."""
    sys.stdout.flush()  # else both processes hold the same unwritten text
    with explaining_shortages():
        reader, writer = os.pipe()
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(question, writer)
    os.close(writer)
    try:
        data = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # it has answered, or only reads
        os.waitpid(pid, os.WNOHANG)  # not waiting: one in an uninterruptible sleep does not die yet
    answer: dict[str, Any] = json.loads(data) if data else {}
    return answer


def _answer(question: Callable[[], dict[str, Any]], writer: int) -> NoReturn:
    """Write the answer to the pipe and exit, without the parent's exit handlers."""
    try:
        os.setsid()  # the terminal's signals are for the command, which kills this process itself
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        data = json.dumps(question()).encode()
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _read(reader: int, end: float) -> bytes:
    """Read to the end of file; nothing when that does not come by `end`: half an answer is none."""
    data = b""
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return data
        data += part
    return b""
