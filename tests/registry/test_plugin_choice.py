"""Which plugins are loaded is also the administrator's to say."""

import os
import subprocess
from pathlib import Path

import pytest

from hostdev_core import Domain, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run, with_installed
from tests.sample import NIC


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with an installed plugin that leaves a trace where it is imported, and a broken one."""
    (tmp_path / "tracing.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'trace')!r}).touch()\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    info = tmp_path / "abroad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abroad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hostdev]\ntracing = tracing\nkeeper = broken\n")
    return tmp_path


def prepare(
    host: SimulatedHost, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": with_installed(folder)} | variables
    return run(*QEMU, "prepare", "vm1", NIC, host=host, env=environment)


def test_all_are_loaded(host: SimulatedHost, elsewhere: Path) -> None:
    assert prepare(host, elsewhere).returncode == 0
    assert (elsewhere / "trace").exists()


@pytest.mark.parametrize("names", ["*", "tracing", "keeper, tracing"])
def test_a_disabled_one_is_not_imported(host: SimulatedHost, elsewhere: Path, names: str) -> None:
    assert prepare(host, elsewhere, HOSTDEV_DISABLE_PLUGINS=names).returncode == 0
    assert not (elsewhere / "trace").exists()


@pytest.mark.parametrize(
    ("required", "disabled", "reason"),
    [
        ("keeper", "", "no_such_module_at_all"),
        ("tracing,keeper", "", "no_such_module_at_all"),
        ("nowhere", "", "not installed"),
        ("tracing", "tracing", "disabled"),
    ],
)
def test_without_a_required_one_nothing_is_changed(
    host: SimulatedHost, elsewhere: Path, required: str, disabled: str, reason: str
) -> None:
    before = host.snapshot()
    variables = {"HOSTDEV_REQUIRE_PLUGINS": required, "HOSTDEV_DISABLE_PLUGINS": disabled}
    done = prepare(host, elsewhere, **variables)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "HOSTDEV_REQUIRE_PLUGINS" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_another_one_of_the_name_is_not_the_required_one(
    host: SimulatedHost, elsewhere: Path
) -> None:
    entries = elsewhere / "abroad-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[hostdev]\nguard = broken\n")
    info = elsewhere / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hostdev]\nguard = tracing\n")
    done = prepare(host, elsewhere, HOSTDEV_REQUIRE_PLUGINS="guard")
    assert (done.returncode, done.stdout) == (1, "")
    assert "HOSTDEV_REQUIRE_PLUGINS" in done.stderr
    assert host.ledger.records() == []


def test_a_required_one_that_is_there(host: SimulatedHost, elsewhere: Path) -> None:
    assert prepare(host, elsewhere, HOSTDEV_REQUIRE_PLUGINS="tracing,qemu").returncode == 0


@pytest.mark.parametrize(
    "words", [("prepare", "vm1", NIC), ("plan", "vm1", NIC), ("device", "detach", NIC)]
)
def test_each_change_warns_of_one_that_does_not_load(
    host: SimulatedHost, elsewhere: Path, words: tuple[str, ...]
) -> None:
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    done = run(*QEMU, *words, host=host, env=environment)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("hostdev: warning: plugin 'keeper' (abroad 1.0, entry point broken")
    assert "no_such_module_at_all" in line


@pytest.mark.parametrize("words", [("prepare", "vm1", NIC), ("plan", "vm1", NIC)])
def test_a_disabled_one_that_is_not_installed_is_said(
    host: SimulatedHost, elsewhere: Path, words: tuple[str, ...]
) -> None:
    environment = os.environ | {"PYTHONPATH": with_installed(elsewhere)}
    environment["HOSTDEV_DISABLE_PLUGINS"] = "keeper,tracer,*"
    done = run(*QEMU, *words, host=host, env=environment)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    said = "hostdev: warning: HOSTDEV_DISABLE_PLUGINS names plugin 'tracer', which is not installed"
    assert line.startswith(said)
    assert line.endswith("did you mean 'tracing'?")
    assert "'tracer', which is not installed" in run("plugins", env=environment).stderr


def test_a_required_one_of_a_wrong_name_is_guessed(host: SimulatedHost, elsewhere: Path) -> None:
    done = prepare(host, elsewhere, HOSTDEV_REQUIRE_PLUGINS="tracng")
    assert done.returncode == 1
    assert "is not installed (installed: " in done.stderr
    assert "did you mean 'tracing'?" in done.stderr


def test_a_plan_without_a_required_one_is_refused_too(host: SimulatedHost, elsewhere: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(elsewhere), "HOSTDEV_REQUIRE_PLUGINS": "keeper"}
    done = run(*QEMU, "plan", "vm1", NIC, host=host, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HOSTDEV_REQUIRE_PLUGINS" in done.stderr


def test_who_looks_is_not_warned(host: SimulatedHost, elsewhere: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    assert run("list", host=host, env=environment).stderr == ""


def test_the_api_logs_it_with_each_call(
    host: SimulatedHost,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(elsewhere))
    with open_connection("qemu:///system", host=host) as conn:
        calls = (
            lambda: conn.detach_device(NIC),
            lambda: conn.reset_device(NIC),
            lambda: conn.prepare_hostdevs(Domain("vm1", [NIC])),
        )
        for call in calls:
            caplog.clear()
            call()
            (warning,) = [r for r in caplog.records if r.levelname == "WARNING"]
            assert warning.name == "hostdev"
            assert "no_such_module_at_all" in warning.getMessage()
