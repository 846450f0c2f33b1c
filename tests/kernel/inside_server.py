"""The process of the guest that has loaded everything, and forks one for each call; see world.call."""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
from importlib import import_module

from hostdev_core import Registry
from hostdev_core.cli import MODULES

DOOR = "/run/inside"
LOADED = ("inside", "inside_world", "inside_processes", "inside_trips")


def serve() -> None:
    """Load everything, and answer each line of DOOR ("REPLY CALL") from a forked process."""
    Registry.from_entry_points()
    for module in {*(f"commands.{name}" for name in MODULES.values()), "parser"}:
        import_module(f"hostdev_core.cli.{module}")
    for module in LOADED:
        import_module(f"{__package__}.{module}")
    if os.path.exists(DOOR):
        os.unlink(DOOR)
    os.mkfifo(DOOR)
    with open(os.open(DOOR, os.O_RDWR), encoding="ascii") as lines:  # both ends: it never ends
        for line in lines:
            reply, packed = line.split()
            if os.fork() == 0:
                with open(reply, "w", encoding="ascii") as file:
                    file.write(f"{_answer(packed)}\n")
                os._exit(0)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(packed: str) -> str:
    """Make a call; its result, or what it raised."""
    module, name, args, kwargs = pickle.loads(base64.b64decode(packed))
    value: object
    try:
        value = getattr(import_module(module), name)(*args, **kwargs)
    except Exception as error:
        value = error
    return base64.b64encode(pickle.dumps(value)).decode()
