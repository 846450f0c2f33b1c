"""For all tests: what is installed beside hostdev is no matter of theirs, nor how fast the machine is.

Examples are the same each time, so that a red test is its change's fault; with HOSTDEV_EXAMPLES=500 in
the environment they are others each time, and the stories of tests/lending/test_stories.py that many.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory, gettempdir

import pytest
from hypothesis import HealthCheck, settings

from hostdev_core import Connection, Registry, open_connection
from hostdev_core.simulated import SimulatedHost, make_sample
from tests.sample import make_host, make_registry

# The helpers say as much of a failed assertion as the tests do.
pytest.register_assert_rewrite("tests.helpers", "tests.lending.stories_calls")
# A shell ignores these for what it starts in the background, and what is ignored is inherited.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
# Nor what terminal they are started from, or for which host.
for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
             "HOSTDEV_SIMULATED_HOST"):  # fmt: skip
    os.environ.pop(name, None)
os.environ["TERM"] = "xterm"
# Hundreds of machines are made of small files: in memory, where there is room, it takes a third of the time.
MEMORY, ROOM = "/dev/shm", 2 << 30
if (
    os.access(MEMORY, os.W_OK | os.X_OK)
    and disk_usage(MEMORY).free >= ROOM
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # tests run scripts that they write
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
installed = {entry.name for entry in entry_points(group="hostdev")}
os.environ["HOSTDEV_DISABLE_PLUGINS"] = ",".join(sorted({"audit", "ch", "guard"} & installed))
settings.register_profile(
    "hostdev",
    deadline=None,
    derandomize="HOSTDEV_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hostdev")


QUICK_CASES = int(os.environ.get("HOSTDEV_QUICK_CASES") or 1)
LONG_FILES = {"test_test.py", "test_endings.py", "test_kinds.py"}
# Their cases are all of `make test`, but for those of a contract and of the pages that are named below.
ALL_CASES = {"contract", "docs", "kernel", "mutants", "tree"}


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A contract disturbs each call at every moment: that is long; tests/testing/test_harness.py does some.

    Where each case of a test is whole calls or commands, its first one stands for the others; of the pages,
    README.md does, and of the contract's drivers those whose hypervisors differ. Where each is a matter of
    milliseconds, its file is marked `quick_cases`.
    """
    cases = Counter[str]()
    for item in items:
        if item.path.parent.name not in ALL_CASES and not item.get_closest_marker("quick_cases"):
            cases[item.nodeid.partition("[")[0]] += 1
            if cases[item.nodeid.partition("[")[0]] > QUICK_CASES:
                item.add_marker(pytest.mark.long)
        call = getattr(item, "callspec", None)
        if call and "scenario" in call.params and item.path.parent.name == "contract":
            item.add_marker(pytest.mark.long)
        if item.path.name in LONG_FILES:
            item.add_marker(pytest.mark.long)
        if "test_a_shell_prints_what_it_says" in item.name and "README.md" not in item.name:
            item.add_marker(pytest.mark.long)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatedHost]:
    """A small machine; make_sample's in a file that is marked `sample`."""
    make = make_sample if request.node.get_closest_marker("sample") else make_host
    host = make(tmp_path / "host")
    yield host
    host.release()  # whatever became of a test: no other process hangs for ever


@pytest.fixture
def registry() -> Registry:
    return make_registry()


@pytest.fixture
def conn(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        yield conn


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, with what is made in it: pytest closes its own to others."""
    places = [Path(place) for place in (gettempdir(), "/tmp", "/var/tmp", "/dev/shm")]
    open_ones = [place for place in places if place.is_dir() and _may_be_entered(place)]
    if not open_ones:
        pytest.skip(f"other users may enter none of {', '.join(map(str, places))}")
    mask = os.umask(0o022)
    try:
        with TemporaryDirectory(dir=open_ones[0]) as folder:
            os.chmod(folder, 0o755)
            yield Path(folder)
    finally:
        os.umask(mask)


def _may_be_entered(place: Path) -> bool:
    """Whether every user may."""
    return all(folder.stat().st_mode & 0o001 for folder in (place, *place.resolve().parents))
