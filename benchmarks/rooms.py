"""How far one call travels: the rooms of hostdev_core that it enters, and the calls between them.

    python benchmarks/rooms.py

A room is a folder of hostdev_core; the front door's files, which stand in hostdev_core itself, count as
one room, and with --files each file is one. A call between rooms is a call of a function of one room by
a function of another, in any thread; lambdas, comprehensions and generated methods count as their file's.
A simulated host's own work is not counted: it stands for the kernel.
"""

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
LIMITS = {"prepare": (16, 400), "reattach": (12, 200), "recover": (12, 150)}
NIC = "0000:01:00.0"


class Travel:
    """Counts, while it is on, the rooms that are entered and the calls between them."""

    def __init__(self, by_file: bool) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self._by_file = by_file
        self._rooms: dict[str, str | None] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        to = self._room(frame)
        caller = frame.f_back
        while caller is not None and self._room(caller) is None:
            caller = caller.f_back
        if to is not None and to != "simulated":
            self.calls[(caller and self._room(caller)) or "caller", to] += 1

    def _room(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._rooms:
            path = name.removeprefix(CORE)
            inside = path != name
            folder = path.rpartition(os.sep)[0].split(os.sep)[0] or "front door"
            room = path if self._by_file else folder
            self._rooms[name] = room if inside else None
        return self._rooms[name]

    def count(self, call: Callable[[], object]) -> tuple[int, int]:
        """The rooms that a call enters, and the calls between them."""
        self.calls.clear()
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        rooms = {room for pair in self.calls for room in pair} - {"caller", "simulated"}
        between = sum(n for (a, b), n in self.calls.items() if a != b and "simulated" not in (a, b))
        return len(rooms), between


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
            if "--edges" in sys.argv:
                print(*travel.calls.most_common(60), sep="\n", file=sys.stderr)
            found["reattach"] = travel.count(lambda: conn.reattach_hostdevs("vm1"))
            if "--edges" in sys.argv:
                print(*travel.calls.most_common(40), sep="\n", file=sys.stderr)
            _die_half_way(conn, host, domain)
            found["recover"] = travel.count(conn.recover)
            if "--edges" in sys.argv:
                print(*travel.calls.most_common(40), sep="\n", file=sys.stderr)
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
