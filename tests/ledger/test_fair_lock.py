"""The fair lock: a holder that is stuck is told from a crowd that gets on."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core.ledger.fair_lock import LockStalledError, fair_lock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "turn")


def test_one_at_a_time(path: str) -> None:
    inside: list[int] = []

    def work() -> None:
        for _ in range(50):
            with fair_lock(path, 60.0):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_a_holder_that_does_not_report_progress_is_stuck(path: str) -> None:
    with fair_lock(path, 60.0), pytest.raises(LockStalledError), fair_lock(path, 0.05):
        pass
    with fair_lock(path, 0.05):  # who gave up waiting does not keep it
        pass


def test_a_crowd_that_gets_on_is_waited_for(path: str) -> None:
    """It gets on within each while of the other one, and takes several of them."""
    done, lock = threading.Event(), threading.Lock()
    holding: list[Callable[[], None]] = []

    def meanwhile() -> None:
        with lock:
            for report_progress in holding:
                report_progress()

    def wait() -> None:
        with fair_lock(path, 1.0, meanwhile):
            done.set()

    with fair_lock(path, 60.0) as report_progress:
        holding.append(report_progress)
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(3)
        assert not done.is_set()
        with lock:
            holding.clear()
    waiter.join()
    assert done.is_set()


def test_it_dies_with_its_holder(path: str) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with fair_lock(path, 60.0):
            os.write(writer, b"x")
            time.sleep(60)
    assert os.read(reader, 1) == b"x"
    os.kill(pid, 9)
    with fair_lock(path, 60.0):
        os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
