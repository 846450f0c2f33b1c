"""Fixtures for everybody's tests: `hostdev_host`, `hostdev_registry`, `hostdev_connection`, ...

pytest loads this module in each of its runs where hostdev is installed (`-p no:hostdev` leaves it
out): it must cost nothing and import nothing but pytest until a test asks for a fixture. A fixture of
the same name in a test module, a class or a conftest.py takes the place of one of these.
"""

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hostdev_core import Connection, Host, Registry

DEFAULT_URI = "qemu:///system"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which backend, and whether on this very machine."""
    group = parser.getgroup("hostdev", "hostdev, on simulated hosts")
    group.addoption(
        "--hostdev-uri",
        metavar="URI",
        default=DEFAULT_URI,
        help="what hostdev_connection opens, on a simulated host (default: %(default)s);"
        " {root} in it is that host's directory",
    )
    group.addoption(
        "--hostdev-plugin",
        metavar="NAME",
        action="append",
        default=[],
        help="an installed plugin that hostdev_registry loads beside the shipped drivers, '*' for all;"
        " may be repeated",
    )
    parser.addini(
        "hostdev_plugins", "as --hostdev-plugin: names, one or several", type="args", default=[]
    )
    group.addoption(
        "--hostdev-real-host",
        action="store_true",
        help="let hostdev_host be this machine: its devices are really taken from their drivers",
    )


@pytest.fixture
def hostdev_uri(request: pytest.FixtureRequest) -> str:
    """The URI of `--hostdev-uri`; override or parametrise it to name others."""
    uri = request.config.getoption("--hostdev-uri")
    assert isinstance(uri, str)
    return uri


@pytest.fixture
def hostdev_plugins(request: pytest.FixtureRequest) -> "Sequence[str]":
    """The plugins of `--hostdev-plugin` and of the setting `hostdev_plugins`; override it to name others."""
    config = request.config
    return [*config.getini("hostdev_plugins"), *(config.getoption("--hostdev-plugin") or ())]


@pytest.fixture
def hostdev_registry(
    request: pytest.FixtureRequest, hostdev_plugins: "Sequence[str]"
) -> "Registry":
    """The shipped drivers and `hostdev_plugins`, loaded for this test alone.

    What else is installed on the machine changes no test. On a real host all plugins are loaded: what
    they guard there is guarded.
    """
    from hostdev_core import Registry

    if "*" in hostdev_plugins or request.config.getoption("--hostdev-real-host"):
        return Registry.from_entry_points()
    return Registry.from_entry_points(hostdev_plugins)


@pytest.fixture
def hostdev_host(
    request: pytest.FixtureRequest, tmp_path: "Path", hostdev_uri: str, hostdev_registry: "Registry"
) -> "Host":
    """A machine of its own for each test, with the cards of `make_sample`; Xen's dom0 for Xen.

    With `--hostdev-real-host`, this machine. A URI that brings its host along has that one.
    """
    from hostdev_core.testing import places

    return places.find_host(
        hostdev_uri,
        hostdev_registry,
        tmp_path / "hostdev",
        real=bool(request.config.getoption("--hostdev-real-host")),
    )


@pytest.fixture
def hostdev_connection(
    request: pytest.FixtureRequest,
    hostdev_uri: str,
    hostdev_host: "Host",
    hostdev_registry: "Registry",
) -> "Iterator[Connection]":
    """An open connection to `hostdev_host`, closed after the test.

    What the test leaves lent stays so on a simulated host, for you to look at. On a real one it is
    given back, also what other connections of the same registry took; when that fails, the test
    has an error that says why.
    """
    from hostdev_core.testing import places

    real = bool(request.config.getoption("--hostdev-real-host"))
    with places.connected(hostdev_uri, hostdev_host, hostdev_registry, real=real) as conn:
        yield conn
