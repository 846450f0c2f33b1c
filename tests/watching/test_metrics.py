"""`hostdev metrics`: what Prometheus reads, whole at every moment."""

import os
import re
import stat
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.sample import NIC, STICK

pytestmark = pytest.mark.sample

# The text format, as far as these figures use it (prometheus.io, "Exposition formats").
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? ([0-9.e+]+)')
DRIFTED = 'hostdev_drifted_records{what="gone"}'


def read(text: str) -> dict[str, float]:
    """The samples by name and labels; each follows the help and the type of its name."""
    found: dict[str, float] = {}
    helped = typed = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split()[2]
        elif line.startswith("# TYPE "):
            typed = line.split()[2]
            assert line.endswith(" gauge")
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == helped == typed
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def measured(host: SimulatedHost) -> dict[str, float]:
    done = run("metrics", host=host)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


def devices(bus: str, state: str) -> str:
    return f'hostdev_devices{{bus="{bus}",state="{state}"}}'


def test_devices_are_counted_by_state(host: SimulatedHost) -> None:
    free = measured(host)
    run("prepare", "vm1", NIC, STICK, host=host)
    lent = measured(host)
    for bus in ("pci", "usb"):
        assert lent[devices(bus, "lent")] == 1
        assert lent[devices(bus, "free")] == free[devices(bus, "free")] - 1
    (since,) = [value for name, value in lent.items() if f'address="{NIC}"' in name]
    assert since == next(r.since for r in host.ledger.records() if r.address == NIC)
    run("reattach", "vm1", host=host)
    assert measured(host) == free


def test_what_needs_somebody(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    host.unplug(NIC)
    assert measured(host)[DRIFTED] == 1
    run("reattach", "vm1", host=host)
    host.on_write("*/e1000e/unbind", hang=True)
    assert run("prepare", "vm1", "02:00.0", "--timeout", "1", host=host).returncode == 3
    found = measured(host)
    assert (found[DRIFTED], found["hostdev_stuck_devices"]) == (0, 1)
    assert found[devices("pci", "stuck")] == 1
    assert found['hostdev_operations{liveness="alive"}'] == 1
    host.release()


def test_a_text_in_a_label_is_escaped(host: SimulatedHost) -> None:
    run("prepare", 'a "quoted\\" name', NIC, host=host)
    (name,) = [name for name in measured(host) if f'address="{NIC}"' in name]
    assert 'domain="a \\"quoted\\\\\\" name"' in name


def test_a_ledger_that_cannot_be_read_is_a_figure(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    Path(host.state_dir, "state.db").write_bytes(b"")
    done = run("metrics", host=host)
    found = read(done.stdout)
    assert done.returncode == 1
    assert done.stderr.startswith("hostdev: whose the devices are is unknown: ")
    assert found["hostdev_ledger_readable"] == 0
    assert found[devices("pci", "unknown")] > 0
    assert found[devices("pci", "free")] == 0


def test_a_file_is_exchanged_for_the_new_one(host: SimulatedHost, tmp_path: Path) -> None:
    file = tmp_path / "node" / "hostdev.prom"
    file.parent.mkdir()
    file.write_text("old\n")
    file.chmod(0o600)
    with file.open() as before:
        mask = os.umask(0o077)
        try:
            done = run("metrics", "--textfile", str(file), host=host)
        finally:
            os.umask(mask)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert before.read() == "old\n"  # who reads the old one reads it to its end
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert read(file.read_text()) == measured(host)
    assert [*file.parent.iterdir()] == [file]


def test_a_file_that_cannot_be_written_stays_as_it_is(host: SimulatedHost, tmp_path: Path) -> None:
    done = run("metrics", "--textfile", str(tmp_path), host=host)
    assert (done.returncode, "is a directory" in done.stderr) == (2, True)
    nowhere = tmp_path / "none" / "hostdev.prom"
    done = run("metrics", "--textfile", str(nowhere), host=host)
    assert done.returncode == 1
    assert done.stderr == (
        f"hostdev: cannot write {nowhere}: No such file or directory; it is as it was\n"
    )
    assert run("metrics", "--json", host=host).returncode == 2
