"""An operation lives as long as anybody may still write for it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from hostdev_core.runtime import forks, signals
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import Operation
from tests.helpers.interrupts import interrupted

pytestmark = pytest.mark.quick_cases

CHILD = """
import sys, time
from hostdev_core.runtime.operation import Operation
with Operation.start(sys.argv[1], "prepare vm1") as operation:
    print(operation.id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> str:
    return str(tmp_path)


def test_it_ends_when_the_last_one_lets_go(state_dir: str) -> None:
    with Operation.start(state_dir, "prepare vm1") as operation:
        operation.hold()
        assert operations.is_alive(state_dir, operation.id)
        assert operations.describe(state_dir, operation.id) == f"prepare vm1 (pid {os.getpid()})"
    assert operations.is_alive(state_dir, operation.id)
    operation.release()
    assert not operations.is_alive(state_dir, operation.id)
    assert operations.list_ids(state_dir) == []
    assert operations.describe(state_dir, operation.id) == "an operation that has ended"


def test_it_dies_with_its_process(state_dir: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, state_dir], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert operations.is_alive(state_dir, name)
        assert f"(pid {process.pid})" in operations.describe(state_dir, name)
        process.kill()
        process.wait()
        assert not operations.is_alive(state_dir, name)
        assert operations.list_ids(state_dir) == [name]
        operations.forget(state_dir, name)
        assert operations.list_ids(state_dir) == []


def test_dead_ones_are_put_away_but_for_those_with_records(state_dir: str) -> None:
    op = Path(state_dir, "op")
    op.mkdir(mode=0o700, exist_ok=True)
    for name in ("dead", "recorded"):
        (op / name).write_text("recover (pid 1)")
    with Operation.start(state_dir, "prepare vm1") as operation:
        operations.forget_dead(state_dir, but={"recorded", None})
        assert operations.list_ids(state_dir) == sorted(["recorded", operation.id])


def _sleep(ready: "multiprocessing.synchronize.Event") -> None:
    ready.set()
    signal.pause()


def test_a_forked_process_does_not_keep_it_alive(state_dir: str) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_sleep, args=(ready,))
    try:
        with Operation.start(state_dir, "prepare vm1") as operation:
            child.start()
            assert ready.wait(30)
        assert not operations.is_alive(state_dir, operation.id)
    finally:
        child.kill()
        child.join()


def test_a_started_program_does_not_keep_it_alive(state_dir: str) -> None:
    with Operation.start(state_dir, "prepare vm1") as operation:
        program = subprocess.Popen(["sleep", "60"])
    with program:
        assert not operations.is_alive(state_dir, operation.id)
        program.kill()


def test_a_program_that_writes_for_it_keeps_it_alive(state_dir: str) -> None:
    with Operation.start(state_dir, "load module vfio_pci") as operation:
        program = subprocess.Popen(["sleep", "60"], pass_fds=[operation.fd])
        name, path = operation.id, Path(state_dir, "op", operation.id)
        os.link(path, f"{path}-kept")
    with program:
        assert not operations.is_alive(state_dir, name)  # its file is gone: it has ended properly
        assert operations.is_alive(state_dir, f"{name}-kept")
        program.kill()
        program.wait()
        assert not operations.is_alive(state_dir, f"{name}-kept")


def test_a_living_one_is_not_forgotten(state_dir: str) -> None:
    with Operation.start(state_dir, "prepare vm1") as operation:
        operations.forget(state_dir, operation.id)
        assert operations.is_alive(state_dir, operation.id)


def test_a_new_one_is_never_taken_for_a_dead_one(state_dir: str) -> None:
    """Somebody puts dead operations away all the time; none that has started disappears."""
    done = threading.Event()

    def clean() -> None:
        while not done.is_set():
            for name in operations.list_ids(state_dir):
                if not operations.is_alive(state_dir, name):
                    operations.forget(state_dir, name)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(300):
            with Operation.start(state_dir, "prepare vm1") as operation:
                assert operations.is_alive(state_dir, operation.id)
    finally:
        done.set()
        cleaner.join()


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "nothing"])
def test_what_is_no_operation(state_dir: str, name: str) -> None:
    assert not operations.is_alive(state_dir, name)
    assert operations.list_ids(state_dir) == []


def in_its_code(frame: FrameType) -> bool:
    """In what makes, looks at and ends an operation, and in what Python enters and leaves its block by."""
    code = frame.f_code
    generator = getattr(frame.f_locals.get("self"), "gen", None)
    return code.co_filename in {operations.__file__, signals.__file__, forks.__file__} or (
        code.co_name in {"__enter__", "__exit__"} and getattr(generator, "__name__", "") == "start"
    )


def open_locks(state_dir: str) -> list[str]:
    """The files of operations that this process has open."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(f"{state_dir}/op/")]


def make_one(state_dir: str, other: str) -> None:
    with Operation.start(state_dir, "prepare vm2") as operation:
        operation.done = True


def forget_one(state_dir: str, other: str) -> None:
    Path(state_dir, "op", "dead").touch()
    operations.forget(state_dir, "dead")


@pytest.mark.parametrize("call", [make_one, forget_one, operations.is_alive])
def test_an_interrupt_at_any_line_leaves_no_lock_behind(
    state_dir: str, call: Callable[[str, str], object]
) -> None:
    """Not for as long as the process lives: its records would count as at work."""
    with Operation.start(state_dir, "prepare vm1") as operation:
        mine = open_locks(state_dir)
        for moment in count(1):
            with suppress(KeyboardInterrupt), interrupted(moment, in_its_code) as came:
                call(state_dir, operation.id)
            assert open_locks(state_dir) == mine, moment
            alive = [
                operations.is_alive(state_dir, name) for name in operations.list_ids(state_dir)
            ]
            assert alive.count(True) == 1, moment
            operations.forget_dead(state_dir)
            if not came:
                break
    assert moment > 20
