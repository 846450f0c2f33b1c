"""A command line that is not understood: what is wrong, what was probably meant, whose help tells more."""

from pathlib import Path

import pytest

from hostdev_core.cli.parser import JSON_KEYS
from hostdev_core.simulated import SimulatedHost
from tests.flow.cli_command import ask, run

NIC, OTHER = "0000:01:00.0", "0000:02:00.0"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(OTHER, kernel_driver="e1000e", iommu_group=2)
    return host


WRONG = {
    "prpare vm1 01:00.0": ("'prpare' is no COMMAND; did you mean prepare?", "hostdev"),
    "device detatch 01:00.0": ("'detatch' is no ACTION; did you mean detach?", "hostdev device"),
    "prepare vm1 01:00.0 --alow in-use": ("did you mean --allow?", "hostdev prepare"),
    "device reset 01:00.0 --alow=in-use": ("did you mean --allow?", "hostdev device reset"),
    "list --jsn": ("'--jsn' is not known here; did you mean --json?", "hostdev list"),
    "list more": ("'more' is not known here;", "hostdev list"),
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
        "plan": ["vm1", NIC],
        "prepare": ["vm1", NIC],
        "status": [],
        "reattach": ["vm1"],
        "recover": [],
        "device detach": [NIC],
        "device reset": [NIC],
        "device forget": [NIC],
        "device reattach": [NIC],
        "plugins": [],
        "capture": [str(folder / "file")],
        "replay": [str(folder / "file"), str(folder / "again")],
    }
    return {words: [*words.split(), *more] for words, more in lines.items()}


def test_the_keys_of_json_are_in_the_help(host: SimulatedHost, tmp_path: Path) -> None:
    main = run("--help").stdout
    for words, line in commands(tmp_path).items():
        keys = {*ask(*line, host=host)}
        assert keys | {"unrecorded"} == {*JSON_KEYS[words], "unrecorded"}, words
        assert f"{words:<16} {', '.join(JSON_KEYS[words])}" in main
        told = " ".join(run(*words.split(), "--help").stdout.split())
        assert f"--json prints a document with: {', '.join(JSON_KEYS[words])}." in told
    assert {*JSON_KEYS} == {*commands(tmp_path)}


def test_a_plans_records_have_the_keys_of_show(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    plan = ask("plan", "vm1", NIC, OTHER, "--same-owner", host=host)
    (device,), (present,) = plan["devices"], plan["present"]
    (shown,) = ask("show", NIC, host=host)["devices"]
    same = {*shown["record"]} - {"state", "operation", "returns"}
    assert {name: present[name] for name in same - {"found"}} == {
        name: shown["record"][name] for name in same - {"found"}
    }
    assert shown["record"]["found"].items() <= present["found"].items()
    assert (device["record"]["address"], device["record"]["phase"]) == (OTHER, "preparing")
    assert device["record"]["used_by"]["domain"] == "vm1"
