"""A program of many threads that has a worker make its changes; `python FILE DIR CALLS`.

Its threads print to a stream of its own, log, take a plugin's locks and import modules, all the time;
any of these locks would be taken for ever in a fork of it.
"""

import importlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hostdev_core import Domain, Registry, hookimpl, open_connection
from hostdev_core.simulated import SimulatedHost

NIC = "0000:01:00.0"
lock = threading.Lock()  # of this plugin: its hooks take it, and the program's threads do


@hookimpl
def hostdev_check() -> None:
    """Look at what the program's other threads write."""
    with lock:
        logging.getLogger("program").warning("checked in %s", os.getpid())


@hookimpl
def hostdev_after_prepare() -> None:
    """Import what other threads are about to import, too."""
    with lock:
        importlib.import_module("module_0")
        print("lent")


class Listener:
    """A plugin that nobody can pack, and that holds what it has heard."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.heard: list[str] = []

    @hookimpl
    def hostdev_after_prepare(self, domain: Domain) -> None:
        with self.lock:
            self.heard.append(f"lent {domain.name}")

    @hookimpl
    def hostdev_after_reattach(self) -> None:
        with self.lock:
            self.heard.append("returned")


class Stream(io.TextIOBase):
    """What a program puts in the place of sys.stdout: nobody prints and flushes at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Take a text."""
        with self._lock:
            return len(text)

    def flush(self) -> None:
        """Wait for whoever writes."""
        with self._lock:
            pass


class Handler(logging.Handler):
    """Takes long, with its lock held."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        record.getMessage()


@contextmanager
def busy(*jobs: Callable[[], object]) -> Iterator[None]:
    """A thread for each of these jobs, which does it again and again."""
    done = threading.Event()

    def work(job: Callable[[], object]) -> None:
        while not done.is_set():
            job()
            done.wait(5e-3)  # most of the time goes to the calls

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def make_modules(folder: Path) -> None:
    """Modules that take a moment to be imported."""
    for number in range(50):
        (folder / f"module_{number}.py").write_text("import time; time.sleep(0.001)\n")
    sys.path.insert(0, str(folder))


def import_again() -> None:
    """Import modules anew."""
    for number in range(50):
        sys.modules.pop(f"module_{number}", None)
        importlib.import_module(f"module_{number}")


def main(folder: Path, calls: int) -> None:
    """Lend and take back, this many times; what is wrong is an exception."""
    make_modules(folder)
    host = SimulatedHost.open(folder / "host")
    before = host.snapshot()
    listener, registry = Listener(), Registry()
    for name in ("hostdev_qemu", "tests.worker.many_threads"):
        registry.register(importlib.import_module(name))
    registry.register(listener)
    plugin = importlib.import_module("tests.worker.many_threads")
    sys.stdout = Stream()
    log = logging.getLogger("program")
    log.addHandler(Handler())
    log.propagate = False

    def hold(lock: threading.Lock) -> None:
        with lock:
            sum(range(100))

    with (
        busy(
            lambda: print("one", flush=True),
            lambda: print("two", flush=True),
            lambda: log.warning("three"),
            lambda: hold(plugin.lock),
            lambda: hold(listener.lock),
            import_again,
        ),
        open_connection("qemu:///system", host=host, registry=registry, worker=True) as conn,
    ):
        for _ in range(calls // 2):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
            assert conn.reattach_hostdevs("vm1") == (NIC,)
    sys.stdout = sys.__stdout__
    assert listener.heard == ["lent vm1", "returned"] * (calls // 2)
    assert host.snapshot() == before
    print("done", calls)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
