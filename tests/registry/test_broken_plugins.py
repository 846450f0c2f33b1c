"""Installed plugins that break in every way there is; through the real command.

They break nobody else: another backend lends and takes back beside them, and `hostdev plugins` says
what is wrong, where it comes from, and where in it.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from hostdev_core import hookspecs
from hostdev_core.simulated import SimulatedHost
from tests.helpers.broken_plugins import (
    HEAD,
    HOOKS,
    LOADING,
    METHODS,
    OTHERS,
    RAISED,
    REFUSES,
    Broken,
    driver,
    each_raises,
    few,
    hook,
    install,
    lend_and_take_back,
    told,
)
from tests.helpers.cli_command import QEMU, ask, clean_environment, run, start, with_installed
from tests.sample import NIC

pytestmark = pytest.mark.sample


def test_plugins_that_do_not_load_side_by_side(host: SimulatedHost, tmp_path: Path) -> None:
    """Each of them is named with its reason, all the others and what works beside it."""
    files = {}
    for number, broken in enumerate(LOADING.values()):
        folder = tmp_path / f"site{number}"
        install(folder, broken.code)
        files[f"sentry{number}"] = (folder / "guarding.py").rename(folder / f"guarding{number}.py")
        info = (folder / "guarding_dist-1.5.dist-info").rename(folder / f"g{number}-1.5.dist-info")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: g{number}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[hostdev]\nsentry{number} = guarding{number}\n")
    folders = [str(file.parent) for file in files.values()]
    env = clean_environment(PYTHONPATH=with_installed(Path(os.pathsep.join(folders))))
    errors = {error["plugin"]: error["error"] for error in ask("plugins", env=env)["errors"]}
    assert {*errors} == {*files}
    for (name, file), broken in zip(files.items(), LOADING.values(), strict=True):
        assert broken.said in errors[name]
        assert f"{file}{f':{broken.line}' if broken.line else ''}" in errors[name]
    lend_and_take_back(host, env)


@pytest.mark.long
@pytest.mark.parametrize("broken", LOADING.values(), ids=LOADING.keys())
def test_a_plugin_that_does_not_load(host: SimulatedHost, tmp_path: Path, broken: Broken) -> None:
    env = install(tmp_path / "site", broken.code)
    file = str(tmp_path / "site" / "guarding.py")
    error = told(env)
    assert (error["plugin"], error["distribution"]) == ("sentry", "guarding-dist 1.5")
    assert (error["entry_point"], error["file"]) == ("guarding", file)
    for said in (broken.said, file, "guarding-dist 1.5"):
        assert said in error["error"]
    if broken.line is not None:
        assert f"({file}:{broken.line})" in error["error"]
    lend_and_take_back(host, env)


@pytest.mark.long
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:plugin", "No module named 'no_such_module'"),
        ("guarding:no_such_name", "no_such_name"),
        ("guarding.below", "not a package"),
    ],
)
def test_an_entry_point_that_leads_nowhere(
    host: SimulatedHost, tmp_path: Path, value: str, said: str
) -> None:
    env = install(tmp_path / "site", HEAD, value)
    error = told(env)
    assert said in error["error"]
    assert error["entry_point"] == value
    assert error["file"].startswith(str(tmp_path / "site"))
    lend_and_take_back(host, env)


@pytest.mark.parametrize(("name", "raised"), each_raises(sorted(REFUSES)))
def test_a_hook_that_raises_refuses_and_changes_nothing(
    host: SimulatedHost, tmp_path: Path, name: str, raised: str
) -> None:
    env = install(tmp_path / "site", hook(f"def hostdev_{name}({HOOKS[name]}):\n    {raised}"))
    before = host.snapshot()
    done = run(*QEMU, "prepare", "vm1", NIC, host=host, env=env)
    assert done.returncode == 1
    assert f"sentry: hostdev_{name} raised" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []
    lend_and_take_back(host, env | {"HOSTDEV_DISABLE_PLUGINS": "sentry"})


@pytest.mark.parametrize(("name", "raised"), each_raises(sorted({*HOOKS} - REFUSES - OTHERS)))
def test_a_hook_that_raises_stops_no_return(
    host: SimulatedHost, tmp_path: Path, name: str, raised: str
) -> None:
    env = install(tmp_path / "site", hook(f"def hostdev_{name}({HOOKS[name]}):\n    {raised}"))
    before = host.snapshot()
    assert run(*QEMU, "prepare", "vm1", NIC, host=host, env=env).returncode == 0
    done = run(*QEMU, "reattach", "vm1", host=host, env=env)
    assert f"sentry: hostdev_{name} raised" in done.stderr
    assert "not given back" not in done.stderr
    assert "Traceback" not in done.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("raised", RAISED)
def test_a_hook_that_raises_hides_no_failure(
    host: SimulatedHost, tmp_path: Path, raised: str
) -> None:
    env = install(tmp_path / "site", hook(f"def hostdev_prepare_failed(error):\n    {raised}"))
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", errno=5)
    done = run(*QEMU, "prepare", "vm1", NIC, host=host, env=env)
    assert done.returncode == 1
    assert "Input/output error" in done.stderr
    assert "sentry: hostdev_prepare_failed raised" in done.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize(("name", "raised"), few(each_raises(METHODS), 2))
def test_a_driver_that_raises_is_named_and_nothing_is_lent(
    host: SimulatedHost, tmp_path: Path, name: str, raised: str
) -> None:
    method = f"    def {name}(self, {METHODS[name]}):\n        {raised}\n"
    env = install(tmp_path / "site", driver().replace("\n\n@hookimpl", f"\n{method}\n@hookimpl"))
    before = host.snapshot()
    done = run("-c", "mine:///system", "prepare", "vm1", NIC, host=host, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "driver mine" in done.stderr
    assert name in done.stderr
    assert "unexpected" not in done.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []
    lend_and_take_back(host, env)


@pytest.mark.parametrize("raised", RAISED)
def test_a_driver_that_fails_to_close_hides_no_answer(
    host: SimulatedHost, tmp_path: Path, raised: str
) -> None:
    closing = f"    def close_backend(self, conn):\n        {raised}\n"
    words = "    def arguments(self, device, node):\n        return ('--device', device.name)\n"
    code = driver().replace("\n\n@hookimpl", f"\n{closing}{words}\n@hookimpl")
    env = install(tmp_path / "site", code)
    before = host.snapshot()
    mine = ("-c", "mine:///system")
    done = run(*mine, "prepare", "vm1", NIC, host=host, env=env)
    assert (done.returncode, done.stdout) == (0, f"--device {NIC}\n")
    assert "driver mine: close raised" in done.stderr
    assert run(*mine, "reattach", "vm1", host=host, env=env).returncode == 0
    assert host.snapshot() == before


def test_a_state_driver_that_fails_to_clean_up_hides_no_answer(
    host: SimulatedHost, tmp_path: Path
) -> None:
    notes = (
        "from hostdev_core import StateDriver\n"
        "class Notes(StateDriver):\n"
        "    def initialize(self): ...\n"
        "    def reload(self): return ()\n"
        "    def cleanup(self): 1 / 0\n"
    )
    answer = "def hostdev_state_drivers(host):\n    yield Notes()\n"
    env = install(tmp_path / "site", hook(answer).replace("@hookimpl", f"{notes}@hookimpl"))
    before = host.snapshot()
    for words in (("prepare", "vm1", NIC), ("reattach", "vm1")):
        done = run(*QEMU, *words, host=host, env=env)
        assert done.returncode == 0
        assert NIC in done.stdout
        assert "plugin sentry: state driver Notes: cleanup raised ZeroDivisionError" in done.stderr
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("raised", RAISED)
def test_a_driver_without_an_offer_keeps_nobody_elses_from_being_asked(
    host: SimulatedHost, tmp_path: Path, raised: str
) -> None:
    offers = f"    def default_uri(self, host):\n        {raised}\n"
    code = driver().replace("\n\n@hookimpl", f"\n{offers}\n@hookimpl")
    env = install(tmp_path / "site", code)
    for disabled, said in (("none", ""), ("qemu,libxl", "no driver offers a default URI")):
        done = run("plan", "vm1", NIC, host=host, env=env | {"HOSTDEV_DISABLE_PLUGINS": disabled})
        assert said in done.stderr
        assert ("driver mine: default_uri raised" in done.stderr) == bool(said)
        assert "unexpected" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("place", few(["", *HOOKS], 2))
def test_what_a_plugin_prints_is_no_part_of_an_answer(
    host: SimulatedHost, tmp_path: Path, place: str
) -> None:
    says = "print('hello')"
    result = "return []" if place == "drivers" else "pass"
    body = f"def hostdev_{place}({HOOKS.get(place)}):\n    {says}\n    {result}"
    env = install(tmp_path / "site", hook(body) if place else says)
    done = run(*QEMU, "prepare", "vm1", NIC, host=host, env=env)
    assert (done.returncode, done.stdout) == (0, f"-device vfio-pci,host={NIC}\n")
    assert ask(*QEMU, "reattach", "vm1", host=host, env=env)["returned"] == [NIC]
    assert ask("plugins", env=env)["errors"] == []


@pytest.mark.parametrize("place", ["", "connection_opened", "check", "before_prepare"])
def test_a_plugin_that_does_not_return_is_named_when_the_command_is_stopped(
    host: SimulatedHost, tmp_path: Path, place: str
) -> None:
    here = tmp_path / "here"
    waits = f"import pathlib, time; pathlib.Path({str(here)!r}).touch(); time.sleep(1000)"
    code = hook(f"def hostdev_{place}({HOOKS.get(place)}):\n    {waits}") if place else waits
    env = install(tmp_path / "site", code)
    before = host.snapshot()
    with start(*QEMU, "prepare", "vm1", NIC, host=host, env=env) as command:
        while not here.exists():
            assert command.poll() is None
            time.sleep(0.02)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "plugin 'sentry'" in said
    assert (f"hostdev_{place} of" if place else str(tmp_path / "site" / "guarding.py")) in said
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.long
@pytest.mark.parametrize("name", [b"caf\xe9", b""])
def test_a_distribution_that_does_not_say_its_name(
    host: SimulatedHost, tmp_path: Path, name: bytes
) -> None:
    env = install(tmp_path / "site", driver(), name=name)
    done = run("plugins", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = (each for each in ask("plugins", env=env)["plugins"] if each["name"] == "sentry")
    assert found["distribution"] is None
    assert found["file"] == str(tmp_path / "site" / "guarding.py")
    lend_and_take_back(host, env)


def test_the_hooks_of_another_backend_are_not_heard(host: SimulatedHost, tmp_path: Path) -> None:
    raising = "".join(
        f"@hookimpl\ndef hostdev_{name}({arguments}):\n    1 / 0\n"
        for name, arguments in HOOKS.items()
        if name not in {"drivers", "state_drivers"}
    )
    env = install(tmp_path / "site", driver() + raising)
    assert run("plugins", env=env).returncode == 0
    lend_and_take_back(host, env)
    before = host.snapshot()
    done = run("-c", "mine:///system", "prepare", "vm1", NIC, host=host, env=env)
    assert done.returncode == 1
    assert "sentry: hostdev_connection_opened raised" in done.stderr
    assert host.snapshot() == before


def test_every_hook_is_broken_here() -> None:
    specified = {name for name in vars(hookspecs) if name.startswith("hostdev_")}
    assert {f"hostdev_{name}" for name in HOOKS} == specified - {"hostdev_core", "hostdev_rules"}


def test_where_a_plugin_comes_from(tmp_path: Path) -> None:
    env = install(tmp_path / "site", driver())
    (found,) = (each for each in ask("plugins", env=env)["plugins"] if each["name"] == "sentry")
    assert found["distribution"] == "guarding-dist 1.5"
    assert found["entry_point"] == "guarding"
    assert found["file"] == str(tmp_path / "site" / "guarding.py")
