"""What no simulated host shows: plugins, users, namespaces, a modprobe that cannot be asked."""

import os
import stat
from pathlib import Path

import pytest

from hostdev_core import Domain, Host
from hostdev_core.doctor.examine import examine
from hostdev_core.simulated import SimulatedHost
from tests.helpers.broken_plugins import HEAD, hook, install
from tests.helpers.cli_command import ask, clean_environment
from tests.helpers.namespaces import OWN_RUN, inside, needs_host, needs_namespaces
from tests.sample import NIC, connect

GUARD = hook("def hostdev_check(conn, domain, devices):\n    return []")


def codes(host: SimulatedHost, env: dict[str, str]) -> dict[str, dict[str, object]]:
    found = ask("doctor", host=host, env=env)["findings"]
    return {finding["code"]: finding for finding in found}


def test_a_plugin_that_checks_is_a_guard(host: SimulatedHost, tmp_path: Path) -> None:
    found = codes(host, install(tmp_path / "site", GUARD) | {"HOSTDEV_DISABLE_PLUGINS": "guard"})
    assert "sentry" in str(found["guard"]["evidence"])
    assert not {"guard-missing", "plugin-broken", "plugin-not-installed"} & {*found}
    assert "sentry" in str(found["plugins-loaded"]["evidence"])


def test_without_one_it_is_said(host: SimulatedHost, tmp_path: Path) -> None:
    """Which plugins this environment has is no matter: all but hostdev's own are left out."""
    found = codes(host, clean_environment(HOSTDEV_DISABLE_PLUGINS="*"))
    assert "hostdev-guard" in str(found["guard-missing"]["remedy"])
    assert "guard" not in found


def test_a_plugin_that_does_not_load_is_a_problem(host: SimulatedHost, tmp_path: Path) -> None:
    found = codes(host, install(tmp_path / "site", f"{HEAD}print('here')\n1 / 0\n"))
    assert found["plugin-broken"]["level"] == "problem"
    assert "ZeroDivisionError" in str(found["plugin-broken"]["evidence"])
    assert "plugins-loaded" not in found
    assert ask("doctor", host=host)["problems"] == []


def test_a_required_plugin_and_a_name_that_nobody_has(host: SimulatedHost) -> None:
    names = {"HOSTDEV_REQUIRE_PLUGINS": "sentry", "HOSTDEV_DISABLE_PLUGINS": "*,nobody"}
    found = codes(host, clean_environment(**names))
    assert "sentry" in str(found["plugin-required-missing"]["evidence"])
    assert "nobody" in str(found["plugin-not-installed"]["evidence"])


def test_a_user_sees_less_and_is_told(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    found = {finding.code: finding for finding in examine(host.as_user())}
    assert {"not-root", "ledger-unseen", "iommu-on"} <= {*found}
    assert "sudo" in found["ledger-unseen"].remedy
    assert not {"records-true", "unrecorded-on-stub"} & {*found}
    assert not {"not-root", "ledger-unseen"} & {finding.code for finding in examine(host)}


@needs_host
@needs_namespaces
def test_another_run_than_the_hosts_is_a_problem() -> None:
    code, out, _ = inside(OWN_RUN, "doctor")
    assert code == 6
    assert "[run-not-the-hosts]" in out
    assert "--state-dir" in out
    assert "run-not-the-hosts" not in {finding.code for finding in examine(Host())}


def test_a_modprobe_that_cannot_be_asked_leaves_the_stub_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without files of modules, and one that has them."""
    program = tmp_path / "bin" / "modprobe"
    program.parent.mkdir()
    program.write_text("no program\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    root = tmp_path / "root"
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    found = {finding.code: finding for finding in examine(Host(str(root)))}
    assert "modprobe cannot be asked" in found["stub-unknown"].evidence[-1]
    folder = root / "lib/modules" / os.uname().release
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("kernel/drivers/vfio/pci/vfio-pci.ko:\n")
    found = {finding.code: finding for finding in examine(Host(str(root)))}
    assert "stub-unknown" not in found
    assert "stub-ready" in found
