"""A command line that is not understood: what is wrong, what was probably meant, whose help tells more."""

import os
from pathlib import Path

import pytest

from hostdev_core.cli.parser import JSON_KEYS
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run
from tests.sample import NIC, OTHER

WRONG = {
    "prpare vm1 01:00.0": ("'prpare' is no COMMAND; did you mean prepare?", "hostdev"),
    "device detatch 01:00.0": ("'detatch' is no ACTION; did you mean detach?", "hostdev device"),
    "prepare vm1 01:00.0 --alow in-use": ("did you mean --allow?", "hostdev prepare"),
    "device reset 01:00.0 --alow=in-use": ("did you mean --allow?", "hostdev device reset"),
    "list --jsn": ("'--jsn' is not known here; did you mean --json?", "hostdev list"),
    "status more": ("'more' is not known here;", "hostdev status"),
    "help prepar": ("'prepar' is no COMMAND; did you mean prepare?", "hostdev"),
    "help device detatch": ("'detatch' is no ACTION; did you mean detach?", "hostdev device"),
    "help list more": ("'more' is no command below `hostdev list`", "hostdev list"),
    "completion bsh": ("'bsh' is no SHELL; did you mean bash?", "hostdev completion"),
    "prepare vm1": ("required: DEVICE", "hostdev prepare"),
    "prepare vm1 01:00.0 --uuid 5ca1": ("'5ca1' is no UUID; wanted 32 hex", "hostdev prepare"),
    "reattach vm1 --uuid=": ("'' is no UUID", "hostdev reattach"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_and_whose_help_tells_more(host: SimulatedHost, words: str) -> None:
    said, program = WRONG[words]
    done = run(*words.split(), host=host)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.endswith(f"see `{program} --help`\n")
    assert run(*program.split()[1:], "--help").returncode == 0
    assert host.ledger.records() == []


@pytest.mark.parametrize("words", ["", "prepare", "device", "device detach"])
def test_the_help_of_a_command_is_what_it_says_itself(words: str) -> None:
    told = run("help", *words.split())
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == run(*words.split(), "--help").stdout


@pytest.mark.parametrize(
    ("asked", "near"),
    [("0000:01:00.1", NIC), ("02:00.4", OTHER), ("1-4", "1-3"), ("18d1:4e2f", "18d1:4e22")],
)
def test_a_device_that_is_not_there_may_be_misread(
    host: SimulatedHost, asked: str, near: str
) -> None:
    host.add_usb("1-3", id="18d1:4e22")
    for words in (("show", asked), ("prepare", "vm1", asked), ("plan", "vm1", asked)):
        said = run(*words, host=host).stderr
        assert f"; did you mean {near}? `hostdev list` shows those there are" in said
    assert "did you mean" not in run("show", "7f:1f.7", host=host).stderr


def test_a_record_that_there_is_none_of_may_be_misread(host: SimulatedHost) -> None:
    assert run("device", "detach", NIC, host=host).returncode == 0
    said = run("device", "forget", "0000:01:00.1", host=host).stderr
    assert f"no record of 0000:01:00.1; did you mean {NIC}? `hostdev status`" in said


def test_a_scheme_and_a_plugin_that_are_misspelt(host: SimulatedHost) -> None:
    said = run("-c", "qmeu:///system", "plan", "vm1", NIC, host=host).stderr
    assert "scheme 'qmeu' is unknown (did you mean qemu?), known are: " in said
    environment = os.environ | {"HOSTDEV_DISABLE_PLUGINS": "libxxl"}
    assert "did you mean 'libxl'?" in run("plugins", host=host, env=environment).stderr


def test_a_domain_that_is_called_like_a_command(host: SimulatedHost) -> None:
    for name in ("reattach", "status"):
        assert run("--timeout", "9", "prepare", name, NIC, "--json", host=host).returncode == 0
        assert run("reattach", name, "--timeout", "9", host=host).stdout.startswith(NIC)


@pytest.mark.long
def test_each_form_of_a_uuid_is_taken(host: SimulatedHost) -> None:
    plain = "5CA1AB1E000040008000000000000001"
    dashed = "5ca1ab1e-0000-4000-8000-000000000001"
    for uuid in (plain, dashed, f"{{{dashed}}}", f"urn:uuid:{dashed}"):
        assert run("prepare", "vm1", NIC, "--uuid", uuid, host=host).returncode == 0
        assert run("reattach", "vm1", "--uuid", dashed, host=host).stdout.startswith(NIC)


def commands(folder: Path) -> dict[str, list[str]]:
    """One of each, in an order in which each does something."""
    lines = {
        "list": [],
        "show": [NIC],
        "explain": [NIC],
        "explain --error": [f"vfio {NIC}: group 1 is not viable"],
        "plan": ["vm1", NIC],
        "prepare": ["vm1", NIC],
        "status": [],
        "topology": [],
        "reattach": ["vm1"],
        "recover": [],
        "device detach": [NIC],
        "device reset": [NIC],
        "device forget": [NIC],
        "device reattach": [NIC],
        "doctor": [],
        "plugins": [],
        "capture": [str(folder / "file")],
        "replay": [str(folder / "file"), str(folder / "again")],
        "help": [],
        "completion": ["bash"],
        "man": [],
    }
    return {words: [*words.split(), *more] for words, more in lines.items()}


@pytest.mark.long
def test_the_keys_of_json_are_in_the_help(host: SimulatedHost, tmp_path: Path) -> None:
    main = " ".join(run("--help").stdout.split())
    for words, line in commands(tmp_path).items():
        keys = {*ask(*line, host=host)}
        assert keys | {"unrecorded"} == {*JSON_KEYS[words], "unrecorded"}, words
        assert f" {words} {', '.join(JSON_KEYS[words])}" in main
        command, option, _ = words.partition(" --")
        told = " ".join(run(*command.split(), "--help").stdout.split())
        begin = "And with --error" if option else "--json prints a document with"
        assert f"{begin}: {', '.join(JSON_KEYS[words])}." in told
    assert {*JSON_KEYS} == {*commands(tmp_path)}


def test_a_plans_records_have_the_keys_of_show(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    plan = ask("plan", "vm1", NIC, OTHER, "--same-owner", host=host)
    (device,), (present,) = plan["devices"], plan["present"]
    (shown,) = ask("show", NIC, host=host)["devices"]
    same = {*shown["record"]} - {"state", "use", "operation", "returns"}
    assert {name: present[name] for name in same - {"found"}} == {
        name: shown["record"][name] for name in same - {"found"}
    }
    assert shown["record"]["found"].items() <= present["found"].items()
    assert (device["record"]["address"], device["record"]["phase"]) == (OTHER, "preparing")
    assert device["record"]["used_by"]["domain"] == "vm1"


@pytest.mark.parametrize(
    ("variable", "named"),
    [(None, "'qemu:///bla' is"), ("qemu:///bla", "HOSTDEV_DEFAULT_URI='qemu:///bla' is")],
)
def test_a_uri_that_is_declined_is_told_with_those_that_are_taken(
    host: SimulatedHost, variable: str | None, named: str
) -> None:
    environment = os.environ | ({} if variable is None else {"HOSTDEV_DEFAULT_URI": variable})
    words = ("-c", "qemu:///bla") if variable is None else ()
    done = run(*words, "prepare", "vm1", NIC, host=host, env=environment)
    assert done.returncode == 1
    assert done.stderr == f"hostdev: {named} declined by qemu; wanted qemu:///system\n"


@pytest.mark.parametrize("words", [("list",), ("show", NIC), ("status",), ("plugins",)])
def test_an_unknown_scheme_is_told_where_no_connection_is_opened(
    host: SimulatedHost, words: tuple[str, ...]
) -> None:
    done = run("-c", "blub:///system", *words, host=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert "scheme 'blub' is unknown, known are: " in done.stderr
    assert run("-c", "no uri", *words, host=host).returncode == 2
    assert run("-c", "xen:///system", *words, host=host).returncode == 0


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("in-us", "nobody knows a rule 'in-us'; did you mean 'in-use'? there are: "),
        ("qwertz", "nobody knows a rule 'qwertz'; there are: in-use, "),
        ("lent", "rule 'lent' is no risk but a fact, and cannot be passed"),
    ],
)
def test_a_rule_that_nothing_refuses_by_is_told(host: SimulatedHost, rule: str, said: str) -> None:
    for words in (("plan", "vm1", NIC), ("prepare", "vm1", NIC), ("device", "detach", OTHER),
                  ("device", "reset", OTHER)):  # fmt: skip
        done = run(*words, "--allow", rule, host=host)
        assert done.returncode == 0, done.stderr
        assert said in (done.stdout if words[0] == "plan" else done.stderr)
    assert run("plan", "vm2", OTHER, "--allow", "in-use", host=host).stderr == ""


def test_what_can_be_passed_is_told_with_the_words_for_it(host: SimulatedHost) -> None:
    with open(host.path("dev/vfio/mine"), "w", encoding="ascii"):
        pass
    host.add_pci("0000:03:00.0", kernel_driver="nvme", class_="010802", block="nvme0n1",
                 iommu_group=3)  # fmt: skip
    mounts = Path(host.path("proc/self/mountinfo"))
    mounts.write_text(
        f"{mounts.read_text()}36 22 {number_of(host)} / /data rw - ext4 /dev/nvme0n1 rw\n"
    )
    done = run("prepare", "vm1", "03:00.0", host=host)
    assert done.returncode == 1
    assert "to pass it: --allow in-use" in done.stderr
    assert run("prepare", "vm1", "03:00.0", "--allow", "in-use", host=host).returncode == 0


def number_of(host: SimulatedHost) -> str:
    return (host.sysfs.read("class/block/nvme0n1/dev") or "").strip()


def test_what_a_domain_has_already_is_told_with_the_flag(host: SimulatedHost) -> None:
    assert run("prepare", "vm1", NIC, host=host).returncode == 0
    assert "--same-owner" in run("prepare", "vm1", NIC, host=host).stderr
    assert "--same-owner" not in run("prepare", "vm2", NIC, host=host).stderr
    assert run("prepare", "vm1", NIC, "--same-owner", host=host).returncode == 0
