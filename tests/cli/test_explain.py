"""`hostdev explain --error`: what a message means, and what this host has of the devices in it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, ask, run
from tests.helpers.terminal import on_a_terminal
from tests.sample import GPU, NIC, SOUND

pytestmark = pytest.mark.sample

VIABLE = f"qemu-system-x86_64: -device vfio-pci,host={GPU}: vfio {GPU}: group 3 is not viable"
WAITING = f"vfio-pci {NIC}: not ready 1023ms after FLR; waiting"


def explain(log: bytes, host: SimulatedHost, **more: Any) -> subprocess.CompletedProcess[str]:
    """Explain a log on standard input."""
    done = subprocess.run(
        [*COMMAND, "explain", "--error", "-", "--host", host.root],
        input=log,
        capture_output=True,
        check=False,
        timeout=60,
        **more,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_a_message_is_explained_beside_the_devices_of_its_group(host: SimulatedHost) -> None:
    done = run("explain", "--error", VIABLE, host=host)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[qemu-group-not-viable] QEMU, line 1" in done.stdout
    assert f"device  {GPU} is here: on nouveau, group 3, available" in done.stdout
    assert f"device  {SOUND} is here: on snd_hda_intel, group 3, available" in done.stdout
    assert f"try     hostdev prepare DOMAIN {GPU} --whole-group" in done.stdout


def test_whose_a_device_is_comes_from_the_ledger(host: SimulatedHost) -> None:
    assert run("prepare", "vm1", NIC, host=host).returncode == 0
    (error,) = ask("explain", "--error", WAITING, host=host)["errors"]
    (device,) = error["devices"]
    assert (device["address"], device["kernel_driver"], device["state"]) == (
        NIC,
        "vfio-pci",
        "lent",
    )
    assert device["used_by"]["domain"] == "vm1"
    shown = run("explain", "--error", WAITING, host=host).stdout
    assert f"{NIC} is here: on vfio-pci, group 1, lent to vm1 (qemu)" in shown


def test_a_usb_device_is_found_by_its_number(host: SimulatedHost) -> None:
    (stick,) = ask("show", "1-3", host=host)["devices"]
    bus, number = map(int, stick["number"].split(":"))
    message = f"failed to open host usb device {bus}:{number}"
    (error,) = ask("explain", "--error", message, host=host)["errors"]
    assert [device["address"] for device in error["devices"]] == ["1-3"]


def test_a_device_of_another_host_is_not_here(host: SimulatedHost) -> None:
    done = run("explain", "--error", WAITING.replace(NIC, "0000:7f:00.0"), host=host)
    assert done.returncode == 0
    assert "is here" not in done.stdout
    assert "try     hostdev show DEVICE" in done.stdout


def test_a_log_on_standard_input(host: SimulatedHost) -> None:
    log = f"boot\n{WAITING}\nmore\n{VIABLE}\n{WAITING}\n" + "usual\n" * 100
    done = explain(log.encode(), host)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.index("linux-not-ready") < done.stdout.index("qemu-group-not-viable")
    assert "line 2, 2 times" in done.stdout


def test_what_is_unknown_is_said_with_what_to_do_next(host: SimulatedHost) -> None:
    done = run("explain", "--error", "vfio: the moon is full", host=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hostdev: not known: vfio: the moon is full\n")
    assert "hostdev show DEVICE" in done.stderr
    several = explain(b"one\ntwo\n", host)
    assert several.returncode == 1
    assert several.stderr.startswith("hostdev: no known message in 2 lines\n")
    empty = explain(b"", host)
    assert (empty.returncode, empty.stderr) == (
        1,
        "hostdev: there is no message to explain: the text is empty\n",
    )


def test_the_name_of_a_log_in_place_of_a_message(host: SimulatedHost, tmp_path: Path) -> None:
    log = tmp_path / "vm 1.log"
    log.write_text(VIABLE)
    done = run("explain", "--error", str(log), host=host)
    assert done.returncode == 1
    assert f"to read it: hostdev explain --error - < '{log}'" in done.stderr


def test_what_is_unknown_beside_a_known_message(host: SimulatedHost) -> None:
    done = run("explain", "--error", f"{VIABLE}\nthe moon is full", host=host)
    assert done.returncode == 0
    assert done.stderr == "hostdev: not known beside: the moon is full\n"


def test_the_document_of_what_is_unknown(host: SimulatedHost) -> None:
    answer = ask("explain", "--error", "the moon is full", host=host)
    assert answer == {"errors": [], "unknown": ["the moon is full"], "lines": 1}


def test_without_a_message_it_is_a_usage_error(host: SimulatedHost) -> None:
    done = run("explain", host=host)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--error TEXT" in done.stderr


def test_a_message_that_begins_like_an_option(host: SimulatedHost) -> None:
    done = run("explain", "--error", f"-device {VIABLE}", host=host)
    assert done.returncode == 0


def test_no_line_but_a_command_is_wider_than_the_terminal(host: SimulatedHost) -> None:
    shown = on_a_terminal("explain", "--error", VIABLE, host=host, columns=60)
    lines = [line for line in shown.lines if not line.startswith("  try ")]
    assert max(map(len, lines)) <= 60
    assert len(lines) > 8


def test_escapes_of_a_hostile_log_do_not_reach_the_terminal(host: SimulatedHost) -> None:
    done = explain(b"\x1b]0;owned\x07\x1b[2J\x9b " + VIABLE.encode() + b"\x1b[8m\x00\xff\n", host)
    assert done.returncode == 0
    assert done.stdout.replace("\n", "").isprintable()
    assert "qemu-group-not-viable" in done.stdout


def test_a_ledger_that_cannot_be_read_is_no_obstacle(host: SimulatedHost) -> None:
    assert run("prepare", "vm1", NIC, host=host).returncode == 0
    with open(f"{host.state_dir}/state.db", "wb") as file:
        file.write(b"no ledger")
    done = run("explain", "--error", WAITING, host=host)
    assert done.returncode == 0
    assert f"{NIC} is here: on vfio-pci, group 1, unknown" in done.stdout
    assert "hostdev: not all is known of the devices" in done.stderr
