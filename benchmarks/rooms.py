"""How far one call travels: the rooms of hostdev_core that it enters, and the calls between them.

    python benchmarks/rooms.py

A room is a folder of hostdev_core; the front door's files, which stand in hostdev_core itself, count as
one room, and with --files each file is one. A call between rooms is a call of a function of one room by
a function of another, in any thread; lambdas and comprehensions count as their file's, a generator once.
Not counted are the calls that a simulated host makes, which stands for the kernel, and those of a backend
or a plugin.
"""

import inspect
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from hostdev_core import Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost, make_sample

CORE = os.path.dirname(sys.modules["hostdev_core"].__file__ or "") + os.sep
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OTHERS = tuple(os.path.join(ROOT, name) + os.sep for name in ("drivers", "plugins"))
CALLER, KERNEL, BACKEND = "caller", "simulated", "backend"
LIMITS = {"prepare": (16, 400), "reattach": (12, 200), "recover": (12, 150)}
NIC = "0000:01:00.0"


class Travel:
    """Counts, while it is on, the rooms that are entered and the calls between them."""

    def __init__(self, by_file: bool) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self._by_file = by_file
        self._rooms: dict[str, str | None] = {}
        self._generators: dict[int, FrameType] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        to = self._room(frame) if event == "call" else None
        if to in {None, KERNEL, BACKEND} or self._goes_on(frame):
            return
        caller = frame.f_back
        while caller is not None and self._room(caller) is None:
            caller = caller.f_back
        self.calls[(caller and self._room(caller)) or CALLER, str(to)] += 1

    def _goes_on(self, frame: FrameType) -> bool:
        """Whether a generator goes on that was called before; its frame is kept, so that it is known."""
        if not frame.f_code.co_flags & inspect.CO_GENERATOR:
            return False
        known = id(frame) in self._generators
        self._generators[id(frame)] = frame
        return known

    def _room(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._rooms:
            self._rooms[name] = self._find_room(name)
        return self._rooms[name]

    def _find_room(self, file: str) -> str | None:
        """None for a file that is nobody's: the standard library's, or generated."""
        if file.startswith(OTHERS):
            return BACKEND
        if not file.startswith(CORE):
            return None
        path = file.removeprefix(CORE)
        folder = path.partition(os.sep)[0] if os.sep in path else "front door"
        return path if self._by_file and folder != KERNEL else folder

    def count(self, call: Callable[[], object]) -> tuple[int, int]:
        """The rooms that a call enters, and the calls between them."""
        self.calls.clear()
        self._generators.clear()
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        outside = {CALLER, KERNEL, BACKEND}
        rooms = {room for pair in self.calls for room in pair} - outside
        between = (n for (a, b), n in self.calls.items() if a != b and not outside & {a, b})
        return len(rooms), sum(between)


def measure(by_file: bool) -> dict[str, tuple[int, int]]:
    """Prepare one device, give it back, and recover it after a prepare that died."""
    travel, found = Travel(by_file), {}
    with tempfile.TemporaryDirectory() as folder:
        host = make_sample(folder + "/host")
        with open_connection(
            "qemu:///system", host=host, registry=Registry.from_entry_points()
        ) as conn:
            domain = Domain("vm1", [NIC])
            conn.prepare_hostdevs(domain)  # imports, caches
            conn.reattach_hostdevs("vm1")
            found["prepare"] = travel.count(lambda: conn.prepare_hostdevs(domain))
            found["reattach"] = travel.count(lambda: conn.reattach_hostdevs("vm1"))
            _die_half_way(conn, host, domain)
            found["recover"] = travel.count(conn.recover)
    return found


def _die_half_way(conn: Any, host: SimulatedHost, domain: Domain) -> None:
    """Leave a record of a prepare whose process was killed before its bind."""
    pid = os.fork()
    if pid == 0:
        host.watch(lambda moment: os._exit(9) if moment.endswith("vfio-pci/bind") else None)
        conn.prepare_hostdevs(domain)
        os._exit(1)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    by_file = "--files" in sys.argv
    found = measure(by_file)
    for name, (rooms, between) in found.items():
        limits = "" if by_file else "  (at most {} and {})".format(*LIMITS[name])
        print(f"{name:10} {rooms:3} rooms {between:5} calls between them{limits}")
    if "--json" in sys.argv:
        print(json.dumps(found))
