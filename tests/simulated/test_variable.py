"""HOSTDEV_SIMULATED_HOST: a program that knows nothing of it works on a simulated host."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import Domain, InputError, open_connection
from hostdev_core.simulated import SimulatedHost, make_sample
from tests.helpers.cli_command import run
from tests.sample import NIC

pytestmark = pytest.mark.sample

VARIABLE = "HOSTDEV_SIMULATED_HOST"


def environment(host: SimulatedHost, **more: str) -> dict[str, str]:
    raised = {"SUDO_UID", "PKEXEC_UID", "DOAS_USER"}
    return {k: v for k, v in os.environ.items() if k not in raised} | {VARIABLE: host.root} | more


def test_a_command_is_about_it_and_says_so_where_it_changes_something(host: SimulatedHost) -> None:
    env = environment(host)
    before = host.snapshot()
    for words in (("prepare", "vm1", "01:00.0"), ("reattach", "vm1")):
        said_so(run(*words, env=env), host)
    assert host.snapshot() == before
    done = run("list", "--json", env=env)
    assert VARIABLE not in done.stderr
    assert NIC in {each["address"] for each in json.loads(done.stdout)["devices"]}


def said_so(done: subprocess.CompletedProcess[str], host: SimulatedHost) -> None:
    assert done.returncode == 0, done.stderr
    assert f"{VARIABLE} is set" in done.stderr
    assert host.root in done.stderr


@pytest.mark.long
def test_every_other_command_too(host: SimulatedHost) -> None:
    env = environment(host)
    before = host.snapshot()
    for words in (
        ("device", "detach", "02:00.0"),
        ("device", "reset", "02:00.0"),
        ("device", "reattach", "02:00.0"),
        ("recover",),
    ):
        said_so(run(*words, env=env), host)
    assert host.snapshot() == before
    for words in (("show", NIC), ("status",), ("plan", "vm1", NIC)):
        done = run(*words, env=env)
        assert done.returncode == 0, done.stderr
        assert VARIABLE not in done.stderr


@pytest.mark.long
def test_forgetting_says_so_too(host: SimulatedHost) -> None:
    env = environment(host)
    run("prepare", "vm1", "01:00.0", env=env)
    done = run("device", "forget", NIC, "--as-is", env=env)
    assert done.returncode == 0, done.stderr
    assert f"{VARIABLE} is set" in done.stderr


def test_a_host_that_is_named_is_that_one(host: SimulatedHost, tmp_path: Path) -> None:
    other = make_sample(tmp_path / "other")
    done = run("prepare", "vm1", "01:00.0", host=other, env=environment(host))
    assert done.returncode == 0
    assert VARIABLE not in done.stderr
    assert [record.address for record in other.ledger.records()] == [NIC]
    assert host.ledger.records() == []


def test_the_default_uri_is_what_fits_it(tmp_path: Path) -> None:
    dom0 = make_sample(tmp_path / "dom0", dom0=True)
    done = run("prepare", "vm1", "01:00.0", env=environment(dom0))
    assert shlex.split(done.stdout) == [f"pci=['{NIC}']"], done.stderr


def test_a_program_with_the_api(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLE, host.root)
    with open_connection("qemu:///system") as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert [record.address for record in host.ledger.records()] == [NIC]
    assert VARIABLE in caplog.text


@pytest.mark.parametrize("what", ["nothing", "folder", "file"])
def test_what_is_no_simulated_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place = tmp_path / "place"
    if what == "folder":
        place.mkdir()
    if what == "file":
        place.write_text("{}")
    for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLE, str(place))
    with pytest.raises(InputError, match=f"{VARIABLE}={place}: .*make one with"):
        open_connection("qemu:///system")


def test_an_empty_name_is_refused(host: SimulatedHost) -> None:
    done = run("prepare", "vm1", NIC, env=environment(host) | {VARIABLE: ""})
    assert done.returncode != 0
    assert f"{VARIABLE} is empty; name a simulated host, or unset it" in done.stderr


def test_the_state_directory_of_this_machine_is_not_its(
    host: SimulatedHost, tmp_path: Path
) -> None:
    done = run("status", "--state-dir", str(tmp_path), env=environment(host))
    assert done.returncode == 2
    assert f"--state-dir is for this machine; the simulated one of {VARIABLE}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root's rights are raised ones for root alone")
@pytest.mark.parametrize("name", ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"])
def test_it_counts_for_nothing_under_sudo(host: SimulatedHost, tmp_path: Path, name: str) -> None:
    done = run("list", "--json", env=environment(host, **{name: "1000"}))
    assert f"{VARIABLE} counts for nothing" in done.stderr
    assert NIC not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may give a program its rights")
def test_it_counts_for_nothing_where_a_program_has_others_rights(
    host: SimulatedHost, public: Path
) -> None:
    """A set-group-ID program: the kernel says so to it (getauxval(3), AT_SECURE)."""
    script = "import sys; from hostdev_core.cli import main; sys.exit(main(['list', '--json']))"
    python = public / "python"
    source = Path(sys.executable).resolve()
    python.write_bytes(source.read_bytes())
    os.chown(python, 0, 65534)
    python.chmod(stat.S_ISGID | 0o755)
    done = subprocess.run(
        [python, "-c", script],
        env=environment(
            host, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONHOME=sys.base_prefix
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"{VARIABLE} counts for nothing" in done.stderr, done.stderr + done.stdout
    assert NIC not in done.stdout
