"""`hostdev demo`: a tour on a simulated machine. Every command shown is really run."""

import io
import os
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from hostdev_core.cli.failures import REFUSED
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit, emit_json, fold, is_coloured, width_of_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from hostdev_core.simulated import SimulatedHost

FIRST, GPU = "01:00.0", "03:00.0"
# The reason, the command's words, and the exit code that it must have.
TOUR: "tuple[tuple[str, str, int], ...]" = (
    ("What is there, and whose is it?", "list", 0),
    ("What would lending a network card and a USB stick to vm1 do?", f"plan vm1 {FIRST} 1-3", 0),
    ("Lend them; the answer is what QEMU wants to hear.", f"prepare vm1 {FIRST} 1-3", 0),
    ("Who has what?", "status", 0),
    (
        "A second domain wants the same card: refused, nothing is changed.",
        f"prepare vm2 {FIRST}",
        1,
    ),
    ("A GPU shares its IOMMU group with its audio function: refused, too.", f"plan vm2 {GPU}", 1),
    ("The whole group, then.", f"prepare vm2 {GPU} --whole-group", 0),
    ("Both domains are gone; everything goes home.", "reattach vm1", 0),
    ("", "reattach vm2", 0),
)


def run(options: Options) -> int:
    """Show the tour, the proof that everything is as found, and this machine's devices."""
    with _machine() as host:
        before = host.snapshot()
        if not options.json:
            _say(f"Everything here really runs, on a simulated machine in {host.root}.")
            emit("# (Each command is given `-c qemu:///system --host` of it, too.)")
        codes = [_step(host, options, *step) for step in TOUR]
        # The proof: the kernel's side is as before, and no record is left.
        same = host.snapshot() == before and not host.ledger.records()
    wanted = [step[2] for step in TOUR]
    if options.json:
        emit_json({"commands": [step[1] for step in TOUR], "exit_codes": codes, "as_found": same})
    else:
        _end(same)
    return 0 if same and codes == wanted else REFUSED


def _end(same: bool) -> None:
    verdict = "is exactly as it was found" if same else "IS NOT AS IT WAS FOUND"
    _say(f"The machine {verdict}: kernel drivers, driver_override, power/control, and no record.")
    _say("And this machine:")
    _type("hostdev list")
    _hostdev(["list"])


@contextmanager
def _machine() -> "Generator[SimulatedHost, None, None]":
    from hostdev_core.simulated import make_sample

    folder = tempfile.mkdtemp(prefix="hostdev-demo-")
    try:
        yield make_sample(os.path.join(folder, "machine"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _step(host: "SimulatedHost", options: Options, why: str, command: str, wanted: int) -> int:
    words = [*shlex.split(command), "-c", "qemu:///system", "--host", host.root]
    if options.json:
        return _hostdev([*words, "--json"], silent=True)
    if why:
        _say(why)
    _type(f"hostdev {command}")
    code = _hostdev(words)
    if code != wanted:
        emit(f"(exit code {code}, wanted {wanted})")
    return code


def _hostdev(words: "list[str]", *, silent: bool = False) -> int:
    """Run a command; its standard error goes to standard output, in the order a terminal would show."""
    from hostdev_core.cli import main

    with redirect_stdout(io.StringIO() if silent else sys.stdout) as out, redirect_stderr(out):
        return main(words)


def _say(text: str) -> None:
    lines = fold(text, width_of_output(), "# ", "# ")
    shown = [f"\x1b[1m{line}\x1b[0m" if is_coloured() else line for line in lines]
    emit("\n".join(["", *shown]))


def _type(text: str) -> None:
    emit(f"\x1b[36m$ {text}\x1b[0m" if is_coloured() else f"$ {text}")
