"""Ask a question in another process: one that hangs in the kernel is left behind."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from hostdev_core.runtime.forks import starting


def ask_apart(question: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The answer to `question` (JSON-able); empty when it fails or takes longer."""
    sys.stdout.flush()
    with starting():
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
        os.waitpid(pid, os.WNOHANG)
    answer: dict[str, Any] = json.loads(data) if data else {}
    return answer


def _answer(question: Callable[[], dict[str, Any]], writer: int) -> NoReturn:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        data = json.dumps(question()).encode()
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _read(reader: int, end: float) -> bytes:
    data = b""
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return data
        data += part
    return b""
