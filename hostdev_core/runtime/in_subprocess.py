"""Reads that may hang in the kernel, made in another process, which is left behind then.

Attributes whose read takes the device's lock are such, and udev's properties.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from hostdev_core.runtime.forks import explaining_shortages

PATIENCE = 2.0  # seconds
MOST_SILENT = 5  # questions that may go without an answer before no more are asked


def ask_in_subprocess(question: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Call `question` in a forked process; its answer (JSON-able), empty when it fails or takes longer."""
    with _forked(lambda writer: _write(writer, json.dumps(question()).encode())) as reader:
        data = _read(reader, time.monotonic() + seconds)
    answer: dict[str, Any] = json.loads(data) if data else {}
    return answer


@contextmanager
def _forked(work: Callable[[int], None]) -> Generator[int]:
    """Fork a process for `work`, which writes to a pipe, and kill it in the end; yields the end to read."""
    sys.stdout.flush()  # else both processes hold the same unwritten text
    with explaining_shortages():
        reader, writer = os.pipe()
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _work(work, writer)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # it has answered, or only reads
        os.waitpid(pid, os.WNOHANG)  # not waiting: one in an uninterruptible sleep does not die yet


def _work(work: Callable[[int], None], writer: int) -> NoReturn:
    """Do the work and exit, without the parent's exit handlers."""
    try:
        os.setsid()  # the terminal's signals are for the command, which kills this process itself
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        work(writer)
    finally:
        os._exit(0)


def _write(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data) :]


def _read(reader: int, end: float) -> bytes:
    """Read to the end of file; nothing when that does not come by `end`: half an answer is none."""
    data = b""
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return data
        data += part
    return b""


def ask_each(
    names: Sequence[str], question: Callable[[str], Any], seconds: float
) -> dict[str, Any]:
    """Call `question` for each name in a forked process; the answers (JSON-able) that came.

    A call that takes longer than `seconds`, or fails, has no answer; the others go on in another process.
    After MOST_SILENT of them nothing more is asked.
    """
    answers: dict[str, Any] = {}
    left = [*names]
    for _ in range(MOST_SILENT):
        if not left:
            break
        came = _ask_until_silent(left, question, seconds)
        answers |= came
        left = left[len(came) + 1 :]  # without the one that was silent
    return answers


def _ask_until_silent(
    names: Sequence[str], question: Callable[[str], Any], seconds: float
) -> dict[str, Any]:
    """Call `question` for each name in one process, until one takes too long; the answers before that."""
    found: dict[str, Any] = {}
    with _forked(lambda writer: _answer_each(names, question, writer)) as reader:
        data = b""
        while select.select([reader], [], [], seconds)[0] and (part := os.read(reader, 65536)):
            *lines, data = (data + part).split(b"\n")
            found |= {names[len(found) + at]: json.loads(line) for at, line in enumerate(lines)}
    return found


def _answer_each(names: Sequence[str], question: Callable[[str], Any], writer: int) -> None:
    for name in names:
        _write(writer, json.dumps(question(name)).encode() + b"\n")
