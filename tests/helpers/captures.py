"""A capture as text, and the machine that it becomes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostdev_core.simulated import SimulatedHost


@contextmanager
def scratch() -> Iterator[Path]:
    folder = tempfile.mkdtemp()
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def capture(host: SimulatedHost, **more: bool) -> str:
    return SimulatedHost.capture(f"{host.root}/sys", **more)


def replayed(text: str | bytes, folder: Path) -> SimulatedHost:
    file = folder / "machine.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return SimulatedHost.replay(file, folder / "replayed")
