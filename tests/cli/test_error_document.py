"""`--json` of a command that fails: one document on standard output, with a code and the way on."""

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import errors
from hostdev_core.cli.error_document import CODES, SYSTEM, UNEXPECTED, code_of
from hostdev_core.simulated import SimulatedHost
from tests.docs.pages import ROOT
from tests.helpers.cli_command import COMMAND, QEMU, run, start
from tests.helpers.processes import is_told_to_stop, wait_until
from tests.sample import GPU, NIC, OTHER, SOUND

pytestmark = pytest.mark.sample
ALWAYS = {"code", "rule", "message", "device", "remedy", "details", "exit_code"}


def fail(*words: str, host: SimulatedHost, **more: Any) -> Any:
    """The error of a command, of which people are told the same as without `--json`."""
    done = run(*words, "--json", host=host, **more)
    plain = run(*words, host=host, **more)
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    document = json.loads(done.stdout)
    error = document["error"]
    assert error.keys() >= ALWAYS
    assert error["exit_code"] == done.returncode != 0
    assert done.stderr.startswith(f"hostdev: {error['message']}\n")
    return error


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("lst", "usage"),
        ("prepare vm1", "usage"),
        ("list --nothing", "usage"),
        ("help prepar", "usage"),
        ("prepare vm1 01:00.0 --timeout never", "usage"),
        ("show nothing-like-it", "invalid-address"),
        ("-c nothing-like-it list", "invalid-uri"),
        ("prepare vm1 01:00.0 01:00.0", "duplicate-device"),
        ("-c blub:///system plan vm1 01:00.0", "no-driver"),
        ("show 7f:00.0", "device-not-found"),
        ("replay /no/such/file /no/such/folder", "input"),
        ("capture /no/such/folder/file", "system"),
    ],
)
def test_each_kind_of_error_has_its_code(host: SimulatedHost, words: str, code: str) -> None:
    assert fail(*words.split(), host=host)["code"] == code
    assert host.ledger.records() == []


def test_a_refusal_has_its_rule_and_the_facts(host: SimulatedHost) -> None:
    error = fail(*QEMU, "prepare", "vm1", GPU, host=host)
    assert (error["code"], error["rule"]) == ("group-not-viable", "group-not-viable")
    assert (error["device"], error["culprits"]) == (GPU, [SOUND])
    missing = fail(*QEMU, "prepare", "vm1", "0000:01:00.1", host=host)
    assert (missing["rule"], missing["device"]) == ("unknown-device", "0000:01:00.1")
    assert missing["remedy"] == [f"hostdev --host {host.root} list"]


def test_the_way_on_is_a_command_for_the_same_machine(host: SimulatedHost) -> None:
    """Whatever the domain is called."""
    domain = 'it\'s `my` "$HOME"'
    assert run(*QEMU, "prepare", domain, NIC, host=host).returncode == 0
    error = fail(*QEMU, "prepare", "vm2", NIC, host=host)
    assert error["used_by"]["domain"] == domain
    (remedy,) = error["remedy"]
    done = subprocess.run(
        ["sh", "-c", f'hostdev() {{ {shlex.join(COMMAND)} {shlex.join(QEMU)} "$@"; }}; {remedy}'],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"{NIC} is given back\n"
    assert host.ledger.records() == []


def test_what_can_be_passed_is_told_by_name(host: SimulatedHost) -> None:
    host.add_pci("0000:06:00.0", kernel_driver="nvme", class_="010802", block="nvme1n1",
                 iommu_group=6)  # fmt: skip
    number = (host.sysfs.read("class/block/nvme1n1/dev") or "").strip()
    mounts = Path(host.path("proc/self/mountinfo"))
    mounts.write_text(f"{mounts.read_text()}36 22 {number} / /data rw - ext4 /dev/nvme1n1 rw\n")
    error = fail(*QEMU, "prepare", "vm1", "06:00.0", host=host)
    assert (error["code"], error["allow"]) == ("veto", ["in-use"])
    (refusal,) = error["refusals"]
    assert refusal.keys() == {"rule", "device", "reason", "evidence"}
    assert (refusal["rule"], refusal["device"]) == ("in-use", "0000:06:00.0")


def test_a_reattach_that_fails_for_one_says_all_in_one_document(host: SimulatedHost) -> None:
    assert run(*QEMU, "prepare", "vm1", NIC, OTHER, host=host).returncode == 0
    host.on_write(f"bus/pci/devices/{OTHER}/driver_override", errno=5)
    done = run(*QEMU, "reattach", "vm1", "--json", host=host)
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["returned"] == [NIC]
    assert document["failed"].keys() == {OTHER}
    error = document["error"]
    assert (error["code"], error["exit_code"]) == ("reattach", 3)
    assert [part["device"] for part in error["errors"]] == [OTHER]


def test_a_signal_and_a_hang_have_their_codes(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with start(*QEMU, "prepare", "vm1", NIC, "--json", host=host) as command:
        host.wait_hanging()
        command.send_signal(signal.SIGTERM)
        wait_until(lambda: is_told_to_stop(command.pid))
        host.release()
        document, _ = command.communicate(timeout=60)
    assert (json.loads(document)["error"]["code"], command.returncode) == ("stopped", 143)
    host.on_write("*/e1000e/unbind", hang=True)
    done = run(*QEMU, "prepare", "vm1", NIC, "--json", "--timeout", "1", host=host)
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["exit_code"], done.returncode) == ("kernel-timeout", 3, 3)
    host.release()
    wait_until(lambda: host.ledger.records() == [])


def test_only_an_option_asks_for_a_document(host: SimulatedHost) -> None:
    assert run("prepare", "--", "vm1", "--json", host=host).stdout == ""
    assert run("lst", "--", "--json", host=host).stdout == ""


def test_a_full_disk_is_told_by_the_exit_code_alone(host: SimulatedHost) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        for words, code in ((("list",), 4), (("lst",), 2)):
            done = subprocess.run(
                [*COMMAND, *words, "--json", "--host", host.root],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == code
            assert done.stderr.startswith("hostdev: ")
            assert "Traceback" not in done.stderr


def test_codes_of_errors_that_are_not_of_hostdev() -> None:
    class Mine(errors.DeviceError):
        """A plugin's own."""

    assert code_of(Mine("no", device=NIC)) == "device"
    assert (code_of(OSError(5, "no")), code_of(ZeroDivisionError())) == (SYSTEM, UNEXPECTED)


def test_the_page_has_every_code_and_no_other() -> None:
    section = (ROOT / "docs/cli.md").read_text().partition("### Errors")[2].partition("\n### ")[0]
    listed = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert [*listed] == sorted(listed)
    assert {*listed} == {*CODES.values(), SYSTEM, UNEXPECTED, "stopped"}
    assert len({*CODES.values()}) == len(CODES)
