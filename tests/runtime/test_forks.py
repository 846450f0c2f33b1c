"""A forked process keeps no descriptor of other work, whatever threads were doing at that moment."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hostdev_core.runtime.forks import close_private, open_private


def in_child(answer: Callable[[], bool]) -> bool:
    """What a forked process says."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if answer() else 1)
    return os.waitpid(pid, 0)[1] == 0


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_a_private_descriptor_stays_here(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    kept = os.open(path, os.O_RDONLY)
    private = open_private(lambda: os.open(path, os.O_RDONLY))
    try:
        assert in_child(lambda: is_open(kept) and not is_open(private))
        assert is_open(private)
    finally:
        close_private(private)
        os.close(kept)
    assert not is_open(private)


def test_none_escapes_while_other_threads_open_and_close(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    done = threading.Event()

    def open_and_close() -> None:
        while not done.is_set():
            close_private(open_private(lambda: os.open(path, os.O_RDONLY)))

    threads = [threading.Thread(target=open_and_close) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_child(lambda: str(path) not in descriptors()) for _ in range(50))
    finally:
        done.set()
        for thread in threads:
            thread.join()


def descriptors() -> set[str]:
    """What this process has open; the listing's own is gone by the time it is asked for."""
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found
