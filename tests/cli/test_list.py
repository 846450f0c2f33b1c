"""`hostdev list`: what it shows, loads and opens; and without rights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost, make_sample
from tests.helpers.cli_command import COMMAND, ask, run, run_as_nobody
from tests.helpers.terminal import on_a_terminal

pytestmark = pytest.mark.sample

SLOW = {"attr", "attrs", "pluggy", "pyudev", "rich", "importlib.metadata", "sqlite3", "argparse"}


def devices(host: SimulatedHost) -> dict[str, dict[str, object]]:
    return {device["address"]: device for device in ask("list", host=host)["devices"]}


def test_list_has_all_devices_with_driver_group_and_state(host: SimulatedHost) -> None:
    found = devices(host)
    assert set(found) == {*(n for n in host.snapshot() if n[:1] == "0"), "1-1", "1-2", "1-3"}
    card = found["0000:01:00.0"]
    assert (card["kernel_driver"], card["iommu_group"], card["state"]) == ("e1000e", 1, "free")
    assert (card["ids"], card["class"], card["used_by"]) == ("8086:10d3", "020000", None)


def test_list_names_devices_from_the_hosts_own_file(host: SimulatedHost) -> None:
    folder = Path(host.root, "usr/share/hwdata")
    folder.mkdir(parents=True)
    (folder / "pci.ids").write_text(
        "# a comment\n8086  Vendor\n\t10d3  Card\nC 02  Networks\n\t00  Wires\n"
    )
    card = devices(host)["0000:01:00.0"]
    assert (card["vendor_name"], card["device_name"]) == ("Vendor", "Card")
    assert card["class_name"] == "Wires"
    assert devices(host)["0000:03:00.0"]["vendor_name"] is None


def test_list_shows_who_has_what(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "1-3", host=host)
    run("device", "detach", "02:00.0", host=host)
    found = devices(host)
    owner = {"domain": "vm1", "driver": "qemu", "uri": "qemu:///system", "uuid": None}
    assert found["0000:01:00.0"]["used_by"] == found["1-3"]["used_by"] == owner
    assert found["0000:02:00.0"]["state"] == "inactive"
    assert "lent to vm1 (qemu)" in run("list", host=host).stdout


def test_list_by_groups_puts_members_together(host: SimulatedHost) -> None:
    lines = run("list", "--groups", host=host).stdout.splitlines()
    at = lines.index("IOMMU group 3")
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["0000:03:00.0", "0000:03:00.1"]


def test_escapes_of_a_device_do_not_reach_the_terminal(host: SimulatedHost) -> None:
    host.add_usb("1-4", id="ffff:0001", product="evil\x1b]0;x\x07 \x1b[2J\rname")
    done = run("list", host=host)
    assert not {"\x1b", "\x07", "\r"} & {*done.stdout}
    assert "name" in done.stdout


def test_list_on_a_terminal_shows_the_same_devices(host: SimulatedHost) -> None:
    shown = on_a_terminal("list", host=host)
    assert shown.code == 0
    assert "0000:03:00.1" in shown.text
    assert "\x1b[" in shown.raw


def test_list_loads_nothing_that_costs_time(host: SimulatedHost) -> None:
    code = f"""
import sys
from hostdev_core.cli import main
code = main(["list"]) or main(["list", "--groups"])
print(sorted({SLOW!r} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needed = ["sqlite3"] if os.path.exists("/run/hostdev") else []  # this machine has a ledger
    assert done.stderr.splitlines()[-1] == str(needed)


@pytest.mark.parametrize("words", [["list"], ["status"], ["show", "01:00.0"]])
def test_looking_opens_no_connection(host: SimulatedHost, words: list[str]) -> None:
    unwanted = SLOW - {"argparse"}
    code = f"""
import sys
from hostdev_core.cli import main
code = main({[*words, "--host", host.root]!r})
print(sorted({unwanted!r} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


HANGING = ("/config", "/uevent", "driver_override", "sriov_numvfs")
AUDITED = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, str(args[0] if args else ""))))
from hostdev_core.cli import main
code = main(["list"])
starts = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
for event, what in seen:
    if event == "open" or event.startswith(starts):
        print("audit:", event, what, file=sys.stderr)
sys.exit(code)
"""


def test_list_opens_no_attribute_that_hangs_and_starts_nothing() -> None:
    """As far as Python sees it; below, as the kernel does."""
    done = subprocess.run(
        [sys.executable, "-c", AUDITED], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("audit: ")]
    assert {line.split()[1] for line in lines} == {"open"}
    assert not [line for line in lines if line.endswith(HANGING)]


def test_nothing_that_list_loads_opens_or_starts_more(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed here, or may not look")
    trace = tmp_path / "trace"
    words = [
        strace,
        "-f",
        "-e",
        "trace=openat,open,execve,clone,fork,vfork,clone3",
        "-o",
        str(trace),
    ]
    subprocess.run([*words, *COMMAND, "list"], check=True, capture_output=True)
    lines = [line for line in trace.read_text().splitlines() if "(" in line]
    assert not [line for line in lines if '/config"' in line or '/uevent"' in line]
    assert not [line for line in lines if "driver_override" in line or "sriov_numvfs" in line]
    assert sum("execve(" in line and "= 0" in line for line in lines) == 1
    assert not [line for line in lines if "clone(" in line or "fork(" in line]


@pytest.fixture
def readable(public: Path) -> SimulatedHost:
    """A host that another user may look at, with a ledger that he may not."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    machine = make_sample(public / "machine")
    run("prepare", "vm1", "01:00.0", host=machine)
    return machine


def test_list_works_without_any_rights(readable: SimulatedHost) -> None:
    done = run_as_nobody("list", "--json", "--host", readable.root)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {device["state"] for device in document["devices"]} == {"unknown"}
    assert "run as root" in document["ledger_error"]
    assert run_as_nobody("list").returncode == 0


def test_status_without_rights_says_so(readable: SimulatedHost) -> None:
    done = run_as_nobody("status", "--host", readable.root)
    assert done.returncode == 1
    assert done.stderr.startswith("hostdev: may not read ")
    assert done.stderr.count("\n") == 1


def test_list_works_without_a_pci_bus(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "machine")
    shutil.rmtree(Path(host.root, "sys/bus"))
    assert ask("list", host=host) == {"devices": [], "absent": [], "ledger_error": None}


def test_list_survives_a_damaged_ledger(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", host=host)
    Path(host.root, "run/hostdev/state.db").write_bytes(b"no database at all" * 100)
    done = run("list", host=host)
    assert done.returncode == 0
    assert "unknown" in done.stdout
    assert "damaged" in done.stderr


def test_a_reader_that_leaves_is_no_error(host: SimulatedHost) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "list", "--host", host.root], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
