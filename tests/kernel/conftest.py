"""Fixtures of the kernel tests: two bare machines and one Xen machine, each booted once per test run.

These tests run only when they are asked for (`pytest tests/kernel`, `pytest -m kernel`), and then
fail, never skip, when the machine lacks something.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import inside, lab, machines
from .guest import Guest
from .world import call, settled, world

HERE = Path(__file__).resolve().parent
MACHINES = ("dom0", "spare", "bare")
# "debian12 debian13": the systems that all tests of these machines run on.
SYSTEMS = os.environ.get("HOSTDEV_LAB_SYSTEMS", lab.DEBIAN12.name).split()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kernel: needs the kernel lab: a real kernel or Xen in an emulated machine"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("kernel")
    if not _asked_for(config):
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Each machine is booted by one process of pytest-xdist, where there are several.

    The name of its machine is in each test's own, by the parameter of the machine's fixture.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByMachine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = re.search(rf"[\[-]((?:{'|'.join(MACHINES)})(?: of \w+)?)[\]-]", nodeid)
            return found[1] if found else str(super()._split_scope(nodeid))

    return ByMachine(config, log)


def _asked_for(config: pytest.Config) -> bool:
    if "kernel" in str(config.getoption("markexpr", "")):
        return True
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return any(path == HERE or HERE in path.parents for path in paths)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A machine once for each system."""
    named = {system.name: system for system in lab.SYSTEMS}
    for machine in MACHINES:
        if machine in metafunc.fixturenames:
            systems = [named[name] for name in SYSTEMS]
            ids = [_of(machine, system) for system in systems]
            metafunc.parametrize(machine, systems, ids=ids, indirect=True, scope="session")


def _of(machine: str, system: lab.System) -> str:
    return machine if system is lab.DEBIAN12 else f"{machine} of {system.name}"


@pytest.fixture(scope="session")
def bare(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """The bare machine: VFIO, IOMMU groups, udev and the devices of machines.bare.

    Shared by all tests: each leaves it as it found it.
    """
    folder = tmp_path_factory.mktemp("bare")
    # Room for a nested QEMU with its pinned memory.
    with Guest(folder, machines.bare(folder), system=request.param, memory=1536) as guest:
        yield guest


@pytest.fixture(scope="session")
def spare(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """Another bare machine, for tests that start no guest of their own: they run beside the others."""
    folder = tmp_path_factory.mktemp("spare")
    with Guest(folder, machines.bare(folder), system=request.param) as guest:
        yield guest


@pytest.fixture(scope="session")
def dom0(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """Dom0 of the Xen machine: xl, xenstored, pciback and the devices of machines.xen.

    Shared by all tests: each leaves it as it found it.
    """
    folder = tmp_path_factory.mktemp("dom0")
    with Guest(folder, machines.xen(folder), system=request.param, xen=True, memory=1536) as guest:
        yield guest


_worlds = pytest.StashKey[dict[str, tuple[int, dict[str, str]]]]()


@pytest.fixture(autouse=True)
def as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves its machine as it found it: devices and ledger."""
    guests: dict[str, Guest] = {
        name: request.getfixturevalue(name) for name in MACHINES if name in request.fixturenames
    }
    known = request.session.stash.setdefault(_worlds, {})
    for name, guest in guests.items():
        if name not in known:
            seen = world(guest)
            known[name] = (guest.commands, seen)
    yield
    for name, guest in guests.items():
        commands, before = known[name]
        if guest.commands == commands:
            continue  # nothing has happened there
        now = settled(guest, before)
        if now != before:
            call(guest, inside.give_everything_back)
        left = before if now == before else world(guest)
        known[name] = (guest.commands, left)
        assert now == before
