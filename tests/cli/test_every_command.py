"""Every command on terminals of 80 and 200 columns: no line is longer, and nothing is lost of it."""

import shlex

import pytest

from hostdev_core.cli import MODULES
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, clean_environment, run
from tests.helpers.terminal import check_fits, on_a_terminal

pytestmark = [pytest.mark.sample, pytest.mark.quick_cases]

LONG = (
    "a-domain-with-a-name-that-is-much-too-long-for-any-line-of-a-terminal-of-eighty-columns-0017"
)
ERROR = "qemu-system-x86_64: -device vfio-pci,host=0000:03:00.0: vfio 0000:03:00.0: group 3 is not viable"
# In this order: each finds what the former ones have left. Exit codes are others' business.
LINES = (
    "list",
    "list --groups",
    "list --all-facts",
    "show *",
    "explain *",
    "explain 03:00.0 --stub nonsense",
    "explain",
    f"explain --error '{ERROR}'",
    "explain --error nonsense",
    f"plan {LONG} 01:00.0",
    f"plan {LONG} 03:00.0",
    f"prepare {LONG} 01:00.0 1-3",
    f"prepare another-{LONG} 01:00.0",
    "device detach 02:00.0",
    "device reset 02:00.0",
    "status",
    "topology",
    "device reattach 02:00.0",
    f"reattach {LONG} 02:00.0",
    f"reattach {LONG}",
    f"reattach {LONG}",
    "recover",
    "plugins",
    "doctor",
    "replay /nowhere/at/all /nowhere/at/all/either",
    "demo",
    "nonsense",
    "prepare vm1 --nonsense",
    *("help", "help prepare", "help device"),
)
FOR_PROGRAMS = {
    "capture": "a document",
    "metrics": "Prometheus's format, a line for each figure",
    "completion": "a script",
    "man": "man(1) lays it out",
    "watch": "does not end: tests/watching",
}


def test_no_command_is_left_out() -> None:
    assert {line.partition(" ")[0] for line in LINES} - {"nonsense"} == {*MODULES} - {*FOR_PROGRAMS}


@pytest.mark.parametrize("columns", [80, 200])
def test_what_a_command_says_fits_the_terminal(host: SimulatedHost, columns: int) -> None:
    for line in LINES:
        shown = on_a_terminal(*QEMU, *shlex.split(line), host=host, columns=columns)
        check_fits(shown, columns)
        assert "Traceback" not in shown.text, line


def test_a_pipe_gets_whole_lines(host: SimulatedHost) -> None:
    """Programs read them line by line, whatever the width of a terminal."""
    for line in ("explain *", f"plan {LONG} 01:00.0", "doctor", f"explain --error '{ERROR}'"):
        words = (*QEMU, *shlex.split(line))
        narrow = run(*words, host=host, env=clean_environment())
        assert narrow.stdout
        shown = on_a_terminal(*words, host=host, columns=80)
        # Only where the lines break is another one.
        assert "".join(shown.text.split()) == "".join((narrow.stdout + narrow.stderr).split())
