"""The driver for Cloud Hypervisor: hostdev's contract, and what is its own."""

import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hostdev_cloud_hypervisor
from hostdev_cloud_hypervisor import CloudHypervisorDriver, api_device, command_line
from hostdev_core import (
    Assignment,
    Connection,
    DeviceInUseError,
    Domain,
    InputError,
    InvalidURIError,
    NotAssignableError,
    PCIHostdev,
    ReattachError,
    Registry,
    USBHostdev,
    open_connection,
)
from hostdev_core.testing import DriverContract, SimulatedHost, make_sample

NIC, OTHER_NIC = "0000:01:00.0", "0000:02:00.0"
PATH, OTHER_PATH = f"/sys/bus/pci/devices/{NIC}/", f"/sys/bus/pci/devices/{OTHER_NIC}/"


class TestContract(DriverContract):
    driver = CloudHypervisorDriver
    uri = "ch:///system"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return make_sample(tmp_path / "host")


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(hostdev_cloud_hypervisor, name="cloud-hypervisor")
    return registry


@pytest.fixture
def conn(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("ch:///system", host=host, registry=registry) as conn:
        yield conn


def test_the_readme_says_what_happens(tmp_path: Path) -> None:
    """Its Python is one script, which prints what its comments say."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    script = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", script, re.MULTILINE)
    assert done.stdout


def test_the_words_for_one_device(host: SimulatedHost, conn: Connection) -> None:
    (assignment,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert assignment.arguments == ("--device", f"path={PATH}")
    assert assignment.node == host.path("dev/vfio/1")
    assert command_line([assignment]) == assignment.arguments


def test_several_devices_share_one_option(conn: Connection) -> None:
    assignments = conn.prepare_hostdevs(Domain("vm1", [OTHER_NIC, NIC]))
    assert command_line(assignments) == ("--device", f"path={OTHER_PATH}", f"path={PATH}")
    assert conn.arguments(assignments) == command_line(assignments)
    assert command_line([]) == conn.arguments([]) == ()


def test_the_form_for_the_api(conn: Connection) -> None:
    nic, other = conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER_NIC]))
    assert api_device(nic) == {"path": PATH, "iommu": False}
    body = json.loads(json.dumps(api_device(other, id="nic1", iommu=True)))
    assert body == {"path": OTHER_PATH, "id": "nic1", "iommu": True}


def test_only_a_lent_pci_device_has_words() -> None:
    missing = Assignment(USBHostdev(port="1-9"), None, missing="there is none")
    with pytest.raises(InputError, match="1-9"):
        api_device(missing)
    with pytest.raises(InputError, match="1-9"):
        command_line([missing])


@pytest.mark.parametrize("uri", ["ch:///session", "ch:///", "ch://host/system", "ch:///system/1"])
def test_another_uri_is_refused(uri: str, host: SimulatedHost, registry: Registry) -> None:
    with pytest.raises(InvalidURIError, match="wanted ch:///system"):
        open_connection(uri, host=host, registry=registry)


def test_pci_stub_is_refused(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    with pytest.raises(NotAssignableError, match="wanted vfio-pci"):
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, stub="pci-stub")]))
    assert host.snapshot() == before


def test_a_device_on_pci_stub_is_moved_to_vfio_pci(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci("0000:08:00.0", kernel_driver="pci-stub", iommu_group=8)
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", ["08:00.0"]))
    assert host.snapshot()["0000:08:00.0"]["kernel_driver"] == "vfio-pci"
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_variant_driver_is_preferred(host: SimulatedHost, conn: Connection) -> None:
    host.add_driver("mlx5-vfio-pci", module="mlx5_vfio_pci", variant_for="15b3:101e")
    host.add_pci("0000:08:00.0", id="15b3:101e", kernel_driver="mlx5_core", iommu_group=8)
    conn.prepare_hostdevs(Domain("vm1", ["08:00.0"]))
    assert host.snapshot()["0000:08:00.0"]["kernel_driver"] == "mlx5-vfio-pci"


def test_a_running_machine_keeps_its_device(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    lent = host.snapshot()
    with host.hold(NIC), pytest.raises(ReattachError, match=NIC):
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == lent
    assert conn.reattach_hostdevs("vm1") == (NIC,)


@contextmanager
def opened_by_another(node: Path) -> Generator[int]:
    """A process that has a node open; its id."""
    program = "import sys; file = open(sys.argv[1], 'w'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, node], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_one_with_iommufd_keeps_it_too(host: SimulatedHost, conn: Connection) -> None:
    """It has the device's own node open, and no group."""
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    lent = host.snapshot()
    (name,) = host.sysfs.names(f"bus/pci/devices/{NIC}/vfio-dev")
    node = Path(host.path(f"dev/vfio/devices/{name}"))
    node.parent.mkdir()
    node.touch()
    with opened_by_another(node) as pid, pytest.raises(ReattachError) as refused:
        conn.reattach_hostdevs("vm1")
    (error,) = refused.value.exceptions
    assert isinstance(error, DeviceInUseError)
    assert f"pid {pid}" in str(error)
    assert host.snapshot() == lent
    assert conn.reattach_hostdevs("vm1") == (NIC,)


def test_the_installed_plugin_is_found(host: SimulatedHost) -> None:
    registry = Registry.from_entry_points()
    assert registry.plugins["cloud-hypervisor"] is hostdev_cloud_hypervisor
    assert not [e for e in registry.load_errors if e.plugin == "cloud-hypervisor"]
    with open_connection("ch:///system", host=host, registry=registry) as conn:
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert assignment.arguments == ("--device", f"path={PATH}")


def test_a_device_without_an_iommu_has_no_words(tmp_path: Path, registry: Registry) -> None:
    host = SimulatedHost.create(tmp_path / "bare", iommu=False)
    host.add_pci(NIC, kernel_driver="e1000e")
    parameters = Path(host.path("sys/module/vfio/parameters"))
    parameters.mkdir(parents=True)
    (parameters / "enable_unsafe_noiommu_mode").write_text("Y\n")
    with open_connection("ch:///system", host=host, registry=registry) as conn:
        nic = PCIHostdev(address=NIC, allow={"no-isolation"})
        assignments = conn.prepare_hostdevs(Domain("vm1", [nic]))
        assert assignments[0].node
        assert conn.arguments(assignments) == assignments[0].arguments == ()
