"""`hostdev capture` and `hostdev replay`: describe a machine in a file, and simulate one from it."""

import os
import shlex

from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, emit_json, print_error
from hostdev_core.errors import HostdevError, InputError
from hostdev_core.model.words import option
from hostdev_core.runtime.in_subprocess import ask_in_subprocess
from hostdev_core.simulated import SimulatedHost
from hostdev_core.simulated.captures.capture import describe
from hostdev_core.simulated.opened import machine_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.facts.use import Description

PATIENCE = 60.0  # seconds for all of it; each device has its own bound


def run(options: Options) -> int:
    """Run the command that was asked for."""
    return replay(options) if options.command == "replay" else capture(options)


def capture(options: Options) -> int:
    """Write the description of the machine."""
    if options.file != "-" and os.path.lexists(options.file):
        raise InputError(f"{options.file} is there already; remove it first, or name another file")
    host = open_host(options)
    # In another process: one that hangs in the kernel is left behind.
    answer = ask_in_subprocess(
        lambda: _describe(host.sysfs.root, serials=options.serials), PATIENCE
    )
    if "text" not in answer:
        reason = answer.get("error", f"there was no answer within {PATIENCE:g} s")
        raise HostdevError(f"cannot describe {host.sysfs.root}: {reason}")
    for line in (*answer["unread"], *answer["left_out"]):
        print_error(line)
    if options.file == "-":
        emit(answer["text"].removesuffix("\n"))
        return 0
    _write(options.file, answer["text"])
    if options.json:
        emit_json({"file": options.file})
    else:
        emit(f"{options.file}: {answer['counts']}; read it before you pass it on")
    return 0


def _describe(sysfs: str, *, serials: bool) -> "Description":
    try:
        document = describe(*machine_of(sysfs), serials=serials)
    except (HostdevError, OSError) as error:
        return {"error": str(error)}
    counts = f"{len(document.pci)} PCI functions, {len(document.usb)} USB devices"
    missing = len(document.left_out)
    return {
        "text": str(document),
        "unread": [f"{name}: {e.unread}" for name, e in document.pci.items() if e.unread],
        "left_out": [f"left out: {line}" for line in document.left_out],
        "counts": f"{counts}, {missing} left out" if missing else counts,
    }


def _write(path: str, text: str) -> None:
    # "x": a file that somebody made since the check stays as it is.
    with open(path, "x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except BaseException:
            os.unlink(path)  # half a description could be taken for a whole machine
            raise


def replay(options: Options) -> int:
    """Make a simulated machine from a file."""
    host = SimulatedHost.replay(options.file, options.directory)
    if options.json:
        emit_json({"host": host.root})
    else:
        command = shlex.join(("hostdev", *option("--host", options.directory), "list"))
        emit(f"{host.root} is a simulated machine; `{command}`")
    return 0
