"""`hostdev show`, `status`, `plan`, `plugins`, `demo`: they look and change nothing."""

from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run, start
from tests.helpers.terminal import on_a_terminal

pytestmark = pytest.mark.sample


def test_show_tells_everything_about_a_device(host: SimulatedHost) -> None:
    run("prepare", "vm1", "03:00.0", "--whole-group", host=host)
    (facts,) = ask("show", "03:00.0", host=host)["devices"]
    assert facts["names"] == ["0000:03:00.0", "03:00.0"]
    assert [member["address"] for member in facts["group"]] == ["0000:03:00.0", "0000:03:00.1"]
    assert facts["driver_override"] == facts["kernel_driver"] == "vfio-pci"
    assert facts["record"]["found"]["kernel_driver"] == "nouveau"
    assert facts["reset_methods"]
    assert "IOMMU group" in run("show", "03:00.0", host=host).stdout


def test_show_by_ids_may_find_several(host: SimulatedHost) -> None:
    found = ask("show", "046d:c077", host=host)["devices"]
    assert [facts["address"] for facts in found] == ["1-1", "1-2"]


def test_show_of_a_device_whose_lock_is_kept_returns(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        (facts,) = ask("show", "01:00.0", host=host)["devices"]
        assert facts["state"] == "preparing"
        assert facts["unread"]
        assert "driver_override" not in facts
        host.release()
        process.communicate()


def test_nothing_there_is_an_error(host: SimulatedHost) -> None:
    done = run("show", "7f:00.0", host=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hostdev: there is no device 0000:7f:00.0")


def test_plan_prints_steps_and_changes_nothing(host: SimulatedHost) -> None:
    before = host.snapshot()
    done = run("plan", "vm1", "01:00.0", "1-1", host=host)
    assert done.returncode == 0
    assert "unbind 0000:01:00.0 from e1000e" in done.stdout
    assert "undo: bind it to e1000e" in done.stdout
    plan = ask("plan", "vm1", "01:00.0", host=host)
    assert [step["action"] for step in plan["devices"][0]["steps"]][-2:] == ["unbind", "bind"]
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_plan_names_the_culprit_of_a_group(host: SimulatedHost) -> None:
    done = run("plan", "vm1", "03:00.0", host=host)
    assert done.returncode == 1
    assert "0000:03:00.1" in done.stderr
    assert "snd_hda_intel" in done.stderr


def test_status_of_a_fresh_host_is_empty(host: SimulatedHost) -> None:
    assert ask("status", host=host) == {"records": [], "drift": [], "stuck": []}
    assert not Path(host.root, "run/hostdev").exists()


def test_status_tells_what_is_at_work(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        row, reason = filter(None, run("status", host=host).stdout.splitlines()[2:])
        assert row.split()[:2] == ["0000:01:00.0", "preparing"]
        assert reason.startswith("0000:01:00.0: preparing for vm1 (qemu): prepare vm1 (pid ")
        host.release()
        process.communicate()
    assert "preparing" not in run("status", host=host).stdout


def test_status_on_a_terminal_is_a_tree_of_owners(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "1-1", host=host)
    run("device", "detach", "02:00.0", host=host)
    shown = on_a_terminal("status", host=host, columns=100)
    assert shown.code == 0
    headers, *lines = shown.lines
    assert headers.split()[:2] == ["ADDRESS", "STATE"]
    assert lines[0].startswith("domain vm1 of qemu (qemu:///system")
    assert [line.split()[:2] for line in lines[1:3]] == [["├──", "0000:01:00.0"], ["└──", "1-1"]]
    assert lines[3] == "inactive list"
    assert lines[4].startswith("└── 0000:02:00.0  inactive  vfio-pci  ")
    assert "\x1b[" in shown.raw


def test_status_reports_drift(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", host=host)
    host.unplug("0000:01:00.0")
    assert ask("status", host=host)["drift"][0]["what"] == "gone"
    assert "0000:01:00.0" in run("list", host=host).stderr


def test_plugins_names_the_shipped_drivers() -> None:
    found = {plugin["name"]: plugin for plugin in ask("plugins")["plugins"]}
    assert found["qemu"]["drivers"] == [{"name": "qemu", "uri_schemes": ["qemu"]}]
    assert {"libxl", "qemu", "test"} <= set(found)
    assert found["qemu"]["distribution"].startswith("hostdev ")


@pytest.mark.long
def test_the_demo_is_honest() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stdout
    assert "is exactly as it was found" in done.stdout
    assert "is in use by domain 'vm1'" in done.stdout
    assert ask("demo")["as_found"] is True


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("hostdev ")
    assert "Exit codes" in run("--help").stdout


def test_only_what_is_needed_is_asked_for() -> None:
    asked_for = run("reattach").stderr.partition("required: ")[2]
    assert asked_for.startswith("DOMAIN;")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["list", "--nonsense"],
        ["prepare", "vm1"],
        ["prepare", "vm1", "not-a-device"],
        ["prepare", "\x1b[31m", "01:00.0"],
        ["show", "../../etc"],
        ["status", "--timeout", "-1"],
        ["list", "--host", "/nonexistent"],
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("hostdev: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
