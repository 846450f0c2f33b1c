"""Turns: who is stuck is told from who is only many."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core.ledger.fair_lock import CrowdedError, turn


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "turn")


def test_one_at_a_time(path: str) -> None:
    inside: list[int] = []

    def work() -> None:
        for _ in range(50):
            with turn(path, 60.0):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_a_holder_that_does_not_get_on_is_stuck(path: str) -> None:
    with turn(path, 60.0), pytest.raises(CrowdedError), turn(path, 0.05):
        pass
    with turn(path, 0.05):  # who gave up waiting does not keep it
        pass


def test_a_crowd_that_gets_on_is_waited_for(path: str) -> None:
    """It gets on within each while of the other one, and takes several of them."""
    done, lock = threading.Event(), threading.Lock()
    holding: list[Callable[[], None]] = []

    def meanwhile() -> None:
        with lock:
            for get_on in holding:
                get_on()

    def wait() -> None:
        with turn(path, 1.0, meanwhile):
            done.set()

    with turn(path, 60.0) as get_on:
        holding.append(get_on)
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
        with turn(path, 60.0):
            os.write(writer, b"x")
            time.sleep(60)
    assert os.read(reader, 1) == b"x"
    os.kill(pid, 9)
    with turn(path, 60.0):
        os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
