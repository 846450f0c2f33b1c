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

from . import inside, lab, machines, tested_on
from .guest import Guest
from .world import call, settled, world

HERE = Path(__file__).resolve().parent
MACHINES = ("dom0", "spare", "bare", "functions", "cdevs", "noiommu")
# "debian12 debian13": the systems that all tests of these machines run on.
SYSTEMS = os.environ.get("HOSTDEV_LAB_SYSTEMS", lab.DEBIAN12.name).split()


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "kernel: needs the kernel lab: a real kernel or Xen in an emulated machine",
        "case(what, tool='', lacks={}, always=False): a row of docs/tested-on.md, on all systems if always",
    ):
        config.addinivalue_line("markers", line)
    if page := os.environ.get("HOSTDEV_TESTED_ON"):
        config.pluginmanager.register(tested_on.TestedOn(config.invocation_params.dir / page))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("kernel")
    lacking = [item for item in ours if _lacks(item)]
    dropped = lacking if _asked_for(config) else ours
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


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


def _lacks(item: pytest.Item) -> bool:
    """Whether a test's system lacks what it needs; notes what docs/tested-on.md says of it.

    While that is written, such a test stays, and its reason is what comes of it.
    """
    case = item.get_closest_marker("case")
    callspec = getattr(item, "callspec", None)
    params: dict[str, object] = callspec.params if callspec else {}
    systems = [param for param in params.values() if isinstance(param, lab.System)]
    if case is None or not systems:
        return False
    (system,) = systems
    told = {"case": case.args[0], "tool": case.kwargs.get("tool", ""), "system": system.title}
    item.user_properties += told.items()
    reason = case.kwargs.get("lacks", {}).get(system.name)
    if reason and "HOSTDEV_TESTED_ON" in os.environ:
        item.add_marker(pytest.mark.skip(reason=reason))
        return False
    return bool(reason)


def _asked_for(config: pytest.Config) -> bool:
    if "kernel" in str(config.getoption("markexpr", "")):
        return True
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return any(path == HERE or HERE in path.parents for path in paths)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A machine once for each system that was asked for; for what is always run, once for each there is."""
    case = metafunc.definition.get_closest_marker("case")
    always = case is not None and case.kwargs.get("always", False)
    systems = [system for system in lab.SYSTEMS if always or system.name in SYSTEMS]
    for machine in MACHINES:
        if machine in metafunc.fixturenames:
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
def functions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """A bare machine with a card of two functions and, where its QEMU has it, an igb."""
    system: lab.System = request.param
    devices = machines.functions(igb=bool(system.suite))
    with Guest(tmp_path_factory.mktemp("functions"), devices, system=system, memory=1536) as guest:
        guest.check("modprobe usbcore")  # there is no USB device, and all is looked at
        yield guest


@pytest.fixture(scope="session")
def cdevs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """A bare machine of two network cards whose kernel has IOMMUFD, and a node for each VFIO device."""
    yield from _with_iommufd(tmp_path_factory.mktemp("cdevs"), request.param, None)


@pytest.fixture(scope="session")
def noiommu(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """The same without an IOMMU, where VFIO does without."""
    for guest in _with_iommufd(tmp_path_factory.mktemp("noiommu"), request.param, ""):
        guest.check("echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
        yield guest


def _with_iommufd(folder: Path, system: lab.System, iommu: str | None) -> Iterator[Guest]:
    with Guest(folder, machines.small(), system=system, iommu=iommu, memory=1536) as guest:
        modules = lab.fill_iommufd(system)
        guest.check(
            f"modprobe -a usbcore irqbypass e1000e; cd /run/host{modules}"
            " && while read -r module; do insmod $module; done < order; udevadm settle"
        )
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


_worlds = pytest.StashKey[dict[Guest, tuple[int, dict[str, str]]]]()


@pytest.fixture(autouse=True)
def as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves its machine as it found it: devices and ledger."""
    guests: list[Guest] = [
        request.getfixturevalue(name) for name in MACHINES if name in request.fixturenames
    ]
    known = request.session.stash.setdefault(_worlds, {})
    for guest in guests:
        if "HOSTDEV_TESTED_ON" in os.environ:
            request.node.user_properties += tested_on.versions(guest)
        if guest not in known:
            seen = world(guest)
            known[guest] = (guest.commands, seen)
    yield
    for guest in guests:
        commands, before = known[guest]
        if guest.commands == commands:
            continue  # nothing has happened there
        now = settled(guest, before)
        if now != before:
            call(guest, inside.give_everything_back)
        left = before if now == before else world(guest)
        known[guest] = (guest.commands, left)
        assert now == before
