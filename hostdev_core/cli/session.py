"""Shared by the commands that open a connection: opening it, and what signals do meanwhile."""

import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import NoReturn

from hostdev_core.cli.failures import Stopped
from hostdev_core.cli.options import Options, deadlines, open_host
from hostdev_core.cli.output import UnprintedError
from hostdev_core.cli.progress import progress_shown
from hostdev_core.cli.stops import handle_stops, stop
from hostdev_core.connection import Connection
from hostdev_core.errors import WAS_DONE
from hostdev_core.opening import open_for_one_call


@contextmanager
def connected(options: Options, *, read_only: bool = False) -> Generator[Connection, None, None]:
    """Open a connection whose changes are carried out by a worker process.

    Plugins' prints go to standard error meanwhile: programs read the answer from standard output.
    SIGINT, SIGTERM and SIGHUP raise Stopped: the worker undoes before the command ends. Once the change
    is done they can only stop the answer: they raise UnprintedError, until the command ends.
    """
    is_named = options.host is not None or options.state_dir is not None
    host = open_host(options) if is_named else None  # None: the URI may bring its own host
    options.at_end += (handle_stops(stop),)
    with progress_shown(options), redirect_stdout(sys.stderr), open_for_one_call(
        options.uri, host=host, read_only=read_only, deadlines=deadlines(options)
    ) as conn:  # fmt: skip
        yield conn
        if not read_only:  # from here on "stopped, after the undo" would be untrue
            handle_stops(_stop_the_answer)


def _stop_the_answer(number: int, frame: FrameType | None) -> NoReturn:
    raise UnprintedError(f"{Stopped(number)} before it could answer; {WAS_DONE}")
