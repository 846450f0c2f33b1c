"""The pytest plugin, in runs of their own: the fixtures, the backends they take, the real host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost, make_sample
from tests.helpers.pytest_runs import run_pytest

ROUND_TRIP = """
from hostdev_core import Domain

def test_round_trip(hostdev_host, hostdev_connection, hostdev_uri):
    before = hostdev_host.snapshot()
    (assignment,) = hostdev_connection.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
    print(f"<{assignment.device.kernel_driver} {' '.join(assignment.arguments)}>")
    assert hostdev_host.snapshot() != before
    hostdev_connection.reattach_hostdevs("vm1")
    assert hostdev_host.snapshot() == before
"""
LEAVES_LENT = """
import pytest
from hostdev_core import Domain, PrepareFlags, open_connection
from hostdev_core.simulated import SimulatedHost

@pytest.fixture
def hostdev_host():
    return SimulatedHost.open({root!r})

def test_leaves(hostdev_host, hostdev_connection, hostdev_registry):
    hostdev_connection.prepare_hostdevs(Domain("vm1", ["0000:01:00.0", "1-1"]))
    hostdev_connection.prepare_hostdevs(Domain("vm1", ["03:00.0"]), PrepareFlags.WHOLE_GROUP)
    hostdev_connection.detach_device("0000:02:00.0")
    hostdev_connection.prepare_hostdevs(
        Domain("theirs", ["0000:04:00.0", "05:00.0"]), PrepareFlags.ALLOW_SAME_OWNER
    )
    with open_connection("qemu:///system", host=hostdev_host, registry=hostdev_registry) as more:
        more.prepare_hostdevs(Domain("vm2", ["1-3"]))
"""


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("", "<vfio-pci -device vfio-pci,host=0000:01:00.0>"),
        ("qemu:///system", "<vfio-pci -device vfio-pci,host=0000:01:00.0>"),
        ("xen:///system", "<pciback pci=['0000:01:00.0']>"),
        ("test:///default", "<vfio-pci device pci 0000:01:00.0>"),
        ("test://{root}", "<vfio-pci device pci 0000:01:00.0>"),
    ],
)
def test_the_same_test_on_every_backend(tmp_path: Path, uri: str, seen: str) -> None:
    options = (f"--hostdev-uri={uri}",) if uri else ()
    assert seen in run_pytest(tmp_path / "run", ROUND_TRIP, *options)


@pytest.mark.long
def test_a_lasting_simulated_host(tmp_path: Path) -> None:
    host = make_sample(tmp_path / "host")
    host.clear_writes()
    run_pytest(tmp_path / "run", ROUND_TRIP, f"--hostdev-uri=test://{host.root}")
    assert host.writes()


@pytest.mark.long
def test_a_captured_machine_is_the_one_that_is_lent_from(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(SimulatedHost.capture(make_sample(tmp_path / "host").path("sys")))
    kept = tmp_path / "tmp"
    kept.mkdir()
    run_pytest(tmp_path / "run", ROUND_TRIP, f"--hostdev-uri=test://{file}", TMPDIR=str(kept))
    assert [*kept.iterdir()] == []


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ("-n", "2"),
        ("--import-mode=importlib",),
        ("--strict-markers", "--strict-config"),
        ("-p", "no:logging"),
        ("-p", "no:warnings"),
        ("--assert=plain",),
        ("-p", "hostdev"),
    ],
    ids=" ".join,
)
def test_ways_to_run_pytest(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert "1 passed" in run_pytest(tmp_path / "run", ROUND_TRIP, *options)


@pytest.mark.long
def test_under_coverage(tmp_path: Path) -> None:
    run_pytest(tmp_path / "run", ROUND_TRIP, python=("-m", "coverage", "run"))


@pytest.mark.long
def test_optimised(tmp_path: Path) -> None:
    warned = "ignore::pytest.PytestConfigWarning"  # by pytest itself, of asserts outside of tests
    assert "1 passed" in run_pytest(tmp_path / "run", ROUND_TRIP, "-W", warned, python=("-O",))


@pytest.mark.long
def test_left_out_by_name(tmp_path: Path) -> None:
    printed = run_pytest(tmp_path / "run", ROUND_TRIP, "-p", "no:hostdev", code=1)
    assert "fixture 'hostdev_host' not found" in printed
    run_pytest(tmp_path / "run", "def test_nothing(): pass", "-p", "no:hostdev")


@pytest.mark.long
def test_a_fixture_of_the_users_takes_the_place_of_ours(tmp_path: Path) -> None:
    uris = """
import pytest

@pytest.fixture(params=["qemu:///system", "xen:///system", "test:///default"])
def hostdev_uri(request):
    return request.param
"""
    assert "3 passed" in run_pytest(tmp_path / "run", uris + ROUND_TRIP)


BACKEND = """\
from hostdev_core import HostdevDriver, LocalHostdevDriver, hookimpl

class Extra(LocalHostdevDriver):
    name = "extra"
    uri_schemes = ("extra",)
    stubs = ("extra-stub",)
    stub_modules = {"extra-stub": "extra_hypervisor"}

    def arguments(self, device, node):
        return ("extra", device.name)

@hookimpl
def hostdev_drivers():
    return [Extra()]
"""
REFUSAL = """\
from hostdev_core import hookimpl

@hookimpl
def hostdev_check(devices):
    raise RuntimeError("of somebody else")
"""


def install(tmp_path: Path, code: str) -> dict[str, str]:
    """The environment in which another plugin is installed."""
    place = tmp_path / "installed"
    (place / "extra-1.0.dist-info").mkdir(parents=True)
    (place / "hostdev_extra.py").write_text(code)
    (place / "extra-1.0.dist-info" / "METADATA").write_text("Name: extra\nVersion: 1.0\n")
    (place / "extra-1.0.dist-info" / "entry_points.txt").write_text(
        "[hostdev]\nextra = hostdev_extra\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.long
def test_what_else_is_installed_changes_no_test(tmp_path: Path) -> None:
    extra = install(tmp_path, REFUSAL)
    assert "1 passed" in run_pytest(tmp_path / "run", ROUND_TRIP, **extra)
    printed = run_pytest(tmp_path / "asked", ROUND_TRIP, "--hostdev-plugin=extra", code=1, **extra)
    assert "of somebody else" in printed


@pytest.mark.long
@pytest.mark.parametrize(
    "asked", ["--hostdev-plugin=extra", "--hostdev-plugin=*", "ini", "fixture"]
)
def test_a_backend_that_is_asked_for(tmp_path: Path, asked: str) -> None:
    extra = install(tmp_path, BACKEND)
    options = [asked] if asked.startswith("--") else []
    if asked == "ini":
        options = ["-o", "hostdev_plugins=extra"]
    named = """
import pytest

@pytest.fixture
def hostdev_plugins():
    return ["extra"]
"""
    test = named + ROUND_TRIP if asked == "fixture" else ROUND_TRIP
    uri = "--hostdev-uri=extra:///system"
    printed = run_pytest(tmp_path / "run", test, uri, *options, **extra)
    assert "<extra-stub extra 0000:01:00.0>" in printed
    printed = run_pytest(tmp_path / "not", ROUND_TRIP, uri, code=1, **extra)
    assert re.search(r"installed and not loaded: .*\bextra\b.* \(--hostdev-plugin=NAME\)", printed)


@pytest.mark.long
def test_a_plugin_that_is_not_installed(tmp_path: Path) -> None:
    printed = run_pytest(tmp_path / "run", ROUND_TRIP, "--hostdev-plugin=qemuu", code=1)
    assert "plugin 'qemuu' is not installed" in printed
    assert "did you mean 'qemu'?" in printed


@pytest.mark.long
def test_an_unknown_scheme_is_said(tmp_path: Path) -> None:
    printed = run_pytest(tmp_path / "run", ROUND_TRIP, "--hostdev-uri=no:///system", code=1)
    assert "NoDriverError" in printed
    assert "known are: xen, qemu, test" in printed


@pytest.mark.long
def test_the_real_host_only_by_name(tmp_path: Path) -> None:
    looks = """
def test_looks(hostdev_host, hostdev_connection):
    assert hostdev_host.root == "/" and not hasattr(hostdev_host, "add_pci")
    assert hostdev_connection.host is hostdev_host
"""
    run_pytest(tmp_path / "real", looks, "--hostdev-real-host")
    real = f"""
import pytest
from hostdev_core import Host

@pytest.fixture
def hostdev_host():
    return Host()
{looks}"""
    printed = run_pytest(tmp_path / "refused", real, code=1)
    assert "--hostdev-real-host" in printed
    assert "/ is no simulated host" in printed


@pytest.fixture
def lasting(tmp_path: Path) -> SimulatedHost:
    """A host with a device that another program has lent."""
    from hostdev_core import Domain, open_connection

    host = make_sample(tmp_path / "host")
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("theirs", ["04:00.0"]))
    return host


def test_what_a_test_leaves_lent_is_given_back_to_a_real_host(
    tmp_path: Path, lasting: SimulatedHost
) -> None:
    before, records = lasting.snapshot(), lasting.ledger.records()
    run_pytest(tmp_path / "run", LEAVES_LENT.format(root=lasting.root), "--hostdev-real-host")
    assert lasting.snapshot() == before
    assert lasting.ledger.records() == records


@pytest.mark.long
def test_what_does_not_go_back_is_an_error_of_the_test(
    tmp_path: Path, lasting: SimulatedHost
) -> None:
    lasting.on_write("bus/pci/drivers/e1000e/bind", value="0000:02:00.0", errno=5, count=9)
    test = LEAVES_LENT.format(root=lasting.root)
    printed = run_pytest(tmp_path / "run", test, "--hostdev-real-host", code=1)
    assert "1 passed, 1 error" in printed
    assert "could not be given back" in printed
    left = {record.address: record.stuck for record in lasting.ledger.records()}
    assert {*left} == {"0000:02:00.0", "0000:04:00.0"}
    assert left["0000:02:00.0"]


@pytest.mark.long
def test_what_a_test_leaves_lent_stays_on_a_simulated_host(
    tmp_path: Path, lasting: SimulatedHost
) -> None:
    run_pytest(tmp_path / "run", LEAVES_LENT.format(root=lasting.root))
    lent = {record.address for record in lasting.ledger.records()}
    assert {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "1-1", "1-3"} <= lent


def test_the_plugin_alone_imports_pytest_and_nothing_else() -> None:
    program = (
        "import sys, pytest; before = {*sys.modules}; import hostdev_core.testing.pytest_plugin\n"
        "print(*sorted({*sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [
        "hostdev_core", "hostdev_core.testing", "hostdev_core.testing.pytest_plugin",
    ]  # fmt: skip


@pytest.mark.long
def test_a_run_that_uses_no_fixture_loads_nothing_of_hostdev(tmp_path: Path) -> None:
    test = """
import sys

def test_what_is_loaded():
    ours = {name for name in sys.modules if name.startswith("hostdev")}
    assert ours == {"hostdev_core", "hostdev_core.testing", "hostdev_core.testing.pytest_plugin"}
"""
    run_pytest(tmp_path / "run", test)
