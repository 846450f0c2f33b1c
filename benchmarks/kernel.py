"""How long lending takes on a real kernel: `python -m benchmarks.kernel`.

Boots the bare machine of tests/kernel (no hardware is needed, about a minute) and prints what eight
network cards cost there: prepared and given back one after the other and all at once, beside the
plain writes of a shell script. The machine is emulated: compare the figures with each other, not
with those of another machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hostdev_core import Domain, open_connection
from hostdev_core.kernel.sysfs import Sysfs

ROUNDS = 3
Work = Callable[[], object]


def main() -> None:
    """Boot, measure inside, print."""
    from tests.kernel import machines
    from tests.kernel.guest import Guest

    source = "from benchmarks.kernel import inside; inside()"
    with tempfile.TemporaryDirectory(prefix="hostdev-benchmark-") as name:
        folder = Path(name)
        with Guest(folder / "guest", machines.bare(folder), memory=1536, cpus=2) as guest:
            guest.check("modprobe vfio-pci")
            done = guest.python(source, *machines.MANY_NICS, timeout=600)
    if done.returncode:
        sys.exit(done.stderr)
    for what, there, back in json.loads(done.stdout):
        print(f"{what:44} {there * 1e3:7.0f} ms {back * 1e3:7.0f} ms back")


def inside() -> None:
    """In the guest: measure, and print the figures as JSON."""
    cards = sys.argv[1:]
    rows = [
        (
            "one card: plain writes",
            *_best(lambda: _write_there(cards[:1]), lambda: _write_back(cards[:1])),
        ),
        (
            "eight cards: plain writes, one by one",
            *_best(lambda: _write_there(cards), lambda: _write_back(cards)),
        ),
    ]
    with open_connection("qemu:///system") as conn:

        def lend(some: Sequence[str]) -> None:
            conn.prepare_hostdevs(Domain("benchmark", some))

        def take() -> None:
            conn.reattach_hostdevs("benchmark")

        def each() -> None:
            for card in cards:
                conn.prepare_hostdevs(Domain(f"benchmark {card}", [card]))

        def each_back() -> None:
            for card in cards:
                conn.reattach_hostdevs(f"benchmark {card}")

        rows.append(("one card: one prepare", *_best(lambda: lend(cards[:1]), take)))
        rows.append(("eight cards: eight prepares", *_best(each, each_back)))
        rows.append(("eight cards: one prepare", *_best(lambda: lend(cards), take)))
    print(json.dumps(rows))


def _best(there: Work, back: Work) -> tuple[float, float]:
    """The shortest time of each in some rounds, seconds."""
    times = [(_timed(there), _timed(back)) for _ in range(ROUNDS)]
    return min(time_ for time_, _ in times), min(time_ for _, time_ in times)


def _timed(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _write_there(cards: Sequence[str]) -> None:
    sysfs = Sysfs()
    for card in cards:
        sysfs.write(f"bus/pci/devices/{card}/driver_override", "vfio-pci")
        sysfs.write("bus/pci/drivers/e1000e/unbind", card)
        sysfs.write("bus/pci/drivers/vfio-pci/bind", card)


def _write_back(cards: Sequence[str]) -> None:
    sysfs = Sysfs()
    for card in cards:
        sysfs.write("bus/pci/drivers/vfio-pci/unbind", card)
        sysfs.write(f"bus/pci/devices/{card}/driver_override", "\n")
        sysfs.write("bus/pci/drivers/e1000e/bind", card)


if __name__ == "__main__":
    main()
