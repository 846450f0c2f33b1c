"""The stub's module: where it is, what modprobe and the kernel are told about it, what loading it binds."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hostdev_qemu
from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    KernelTimeoutError,
    LocalHostdevDriver,
    NotAssignableError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.driver import HostdevDriver
from hostdev_core.kernel.modprobe import LARGEST
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Untouched
from hostdev_core.testing.harness.jobs import Job, run

NIC, IDLE, OTHER, LATE = (f"0000:0{bus}:00.0" for bus in (1, 2, 3, 4))
RELEASE = "6.1.0-simulated"
QEMU = "tests.contract.test_qemu:TestQemu"
FILE = str(Path(__file__).parents[1] / "contract" / "test_qemu.py")
CONFIGURATION = "etc/modprobe.d/local.conf"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return make_host(tmp_path / "machine")


def make_host(path: Path) -> SimulatedHost:
    """A card on its host driver, and no stub loaded."""
    host = SimulatedHost.create(path)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_driver("other-vfio-pci")
    host.add_pci("0000:09:00.0", id="10de:2204", kernel_driver="other-vfio-pci", iommu_group=9)
    return host


@pytest.fixture
def conn(host: SimulatedHost) -> Connection:
    return connect(host)


def connect(host: SimulatedHost, *plugins: object, uri: str = "qemu:///system") -> Connection:
    registry = Registry()
    registry.register(hostdev_qemu, name="qemu")
    for plugin in plugins:
        registry.register(plugin)
    return open_connection(uri, host=host, registry=registry, deadlines=Deadlines(attribute=1))


def write(host: SimulatedHost, path: str, text: str) -> Path:
    file = Path(host.path(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def make_pipe(path: str) -> None:
    """A pipe in a file's place keeps nobody waiting."""
    Path(path).unlink(missing_ok=True)
    os.mkfifo(path)


def make_huge(path: str) -> None:
    Path(path).write_bytes(b"#" * (LARGEST + 1))


def make_loop(path: str) -> None:
    Path(path).symlink_to(path)


def lend_and_return(host: SimulatedHost, conn: Connection, *devices: str) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [*devices]))
    for device in devices:
        assert str(host.snapshot()[device]["kernel_driver"]).endswith("vfio-pci")
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def refuse(host: SimulatedHost, conn: Connection, *devices: str) -> NotAssignableError:
    """What plan and prepare refuse, and nothing is changed by."""
    with Untouched(host), pytest.raises(NotAssignableError) as planned:
        conn.plan(Domain("vm1", [*devices]))
    with Untouched(host), pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [*devices]))
    assert str(planned.value) == str(raised.value)
    assert not host.modules.is_loaded("vfio_pci")
    return raised.value


def warnings(conn: Connection) -> str:
    return "\n".join(conn.plan(Domain("vm1", [NIC])).warnings)


class TestWhereModulesAre:
    def test_modprobe_knows_another_place(self, host: SimulatedHost, conn: Connection) -> None:
        """NixOS has no /lib/modules."""
        place = Path(host.path("run/booted-system/kernel-modules/lib"))
        place.mkdir(parents=True)
        os.rename(host.path("lib/modules"), place / "modules")
        assert warnings(conn) == ""
        lend_and_return(host, conn, NIC)

    def test_a_variant_driver_in_another_place(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_driver(
            "nic-vfio-pci", module="nic_vfio_pci", loaded=False, variant_for="8086:10d3"
        )
        os.rename(host.path("lib/modules"), host.path("nix"))
        (device,) = conn.plan(Domain("vm1", [NIC])).devices
        assert device.record.stub == "nic-vfio-pci"
        lend_and_return(host, conn, NIC)

    def test_the_modules_of_an_older_kernel(self, host: SimulatedHost, conn: Connection) -> None:
        os.rename(host.path(f"lib/modules/{RELEASE}"), host.path("lib/modules/5.10.0"))
        error = refuse(host, conn, NIC)
        assert f"Module vfio-pci not found in directory /lib/modules/{RELEASE}" in str(error)
        assert error.rule == "stub"

    def test_what_is_in_the_kernel_needs_no_files(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        host.modules.load("vfio-pci")
        shutil.rmtree(host.path(f"lib/modules/{RELEASE}"))
        assert "variant driver" in warnings(conn)
        lend_and_return(host, conn, NIC)

    @pytest.mark.parametrize("spoil", [os.unlink, make_pipe])
    def test_variants_that_cannot_be_known_are_said(
        self, host: SimulatedHost, conn: Connection, spoil: Callable[[str], object]
    ) -> None:
        host.modules.load("vfio-pci")
        os.unlink(host.path(f"lib/modules/{RELEASE}/modules.dep"))
        spoil(host.path(f"lib/modules/{RELEASE}/modules.alias"))
        assert f"whether there is a variant driver for {NIC} cannot be known" in warnings(conn)


class TestWhatModprobeIsTold:
    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (CONFIGURATION, "blacklist vfio-pci\n"),
            ("proc/cmdline", "quiet modprobe.blacklist=nouveau,vfio_pci\n"),
        ],
    )
    def test_a_blacklisted_module_is_loaded_by_its_name(
        self, host: SimulatedHost, conn: Connection, path: str, text: str
    ) -> None:
        write(host, path, text)
        assert path in warnings(conn)
        assert "blacklists module vfio_pci" in warnings(conn)
        lend_and_return(host, conn, NIC)

    @pytest.mark.parametrize(
        ("path", "text", "said"),
        [
            (CONFIGURATION, "# a\n\ninstall vfio-pci /bin/false\n", ":3 disables"),
            (CONFIGURATION, "install vfio_pci \\\n true\n", ":1 disables"),
            ("usr/lib/modprobe.d/x.conf", " install\tvfio_pci  :\n", ":1 disables"),
            ("proc/cmdline", "a module_blacklist=b,vfio_pci c\n", "module_blacklist=b,vfio_pci"),
        ],
    )
    def test_a_disabled_module_is_refused(
        self, host: SimulatedHost, conn: Connection, path: str, text: str, said: str
    ) -> None:
        write(host, path, text)
        error = refuse(host, conn, NIC)
        assert path in str(error)
        assert said in str(error)
        assert error.evidence

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (CONFIGURATION, "#install vfio_pci /bin/false\ninstall other /bin/false\n"),
            (CONFIGURATION, "install vfio_pci /bin/true; modprobe --ignore-install vfio_pci\n"),
            ("etc/modprobe.d/notes.txt", "install vfio_pci /bin/false\n"),
            ("etc/modprobe.d/folder.conf/x.conf", "install vfio_pci /bin/false\n"),
            ("proc/cmdline", "module_blacklist=vfio_pci module_blacklist=b,vfio-pci"),
        ],
    )
    def test_what_only_looks_like_that_is_not(
        self, host: SimulatedHost, conn: Connection, path: str, text: str
    ) -> None:
        write(host, path, text)
        lend_and_return(host, conn, NIC)

    def test_a_file_hides_those_of_its_name(self, host: SimulatedHost, conn: Connection) -> None:
        write(host, "lib/modprobe.d/local.conf", "install vfio_pci /bin/false\n")
        Path(host.path("etc/modprobe.d/local.conf")).symlink_to("/dev/null")
        lend_and_return(host, conn, NIC)


class TestWhatCannotBeRead:
    @pytest.mark.parametrize("spoil", [
        make_pipe, make_huge, make_loop,
    ], ids=["pipe", "huge", "loop"])  # fmt: skip
    @pytest.mark.parametrize("place", [CONFIGURATION, "proc/cmdline"])
    def test_is_refused(
        self, host: SimulatedHost, conn: Connection, spoil: Callable[[str], object], place: str
    ) -> None:
        spoil(host.path(place))
        error = refuse(host, conn, NIC)
        assert host.path(place) in str(error)

    def test_a_file_in_a_folder_s_place(self, host: SimulatedHost, conn: Connection) -> None:
        write(host, "run/modprobe.d", "")
        assert "run/modprobe.d" in str(refuse(host, conn, NIC))

    def test_a_link_that_leads_nowhere_is_passed_over(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        Path(host.path(CONFIGURATION)).symlink_to("gone")
        lend_and_return(host, conn, NIC)

    @pytest.mark.parametrize("unreadable", ["a file", "a folder"])
    def test_without_the_right_to_read_it(self, public: Path, unreadable: str) -> None:
        """Another user's plan: everything else of the machine may be read."""
        host = make_host(public / "machine")
        file = write(host, CONFIGURATION, "install vfio_pci /bin/false\n")
        (file if unreadable == "a file" else file.parent).chmod(0)
        said = in_child(host, AS_NOBODY if os.geteuid() == 0 else "pass")
        assert said.startswith("NotAssignableError")
        assert os.strerror(errno.EACCES) in said

    def test_a_capture_tells_what_it_could_not_read(self, host: SimulatedHost) -> None:
        """As an ordinary user's, where the modules are root's alone; a link to itself is no file for root."""
        whole = json.loads(SimulatedHost.capture(host.path("sys")))
        for name in ("modules.alias", "modules.dep"):
            path = Path(host.path(f"lib/modules/{host.kernel_release}/{name}"))
            path.unlink(missing_ok=True)
            path.symlink_to(name)
        told = json.loads(SimulatedHost.capture(host.path("sys")))
        assert told["pci"] == whole["pci"]
        assert "modules.alias" in " ".join(told["left_out"])
        assert "modules.dep" in " ".join(told["left_out"])

    def test_without_a_descriptor_left(self, host: SimulatedHost) -> None:
        """However few are left, the rule is seen or the call refused."""
        write(host, CONFIGURATION, "install vfio_pci /bin/false\n")
        answers = [in_child(host, f"use_up({left})") for left in range(0, 16, 3)]
        assert not any("planned" in answer for answer in answers), answers
        assert "disables" in answers[-1]


AS_NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
_CHILD = """
import os, resource, sys
import hostdev_qemu
from hostdev_core import Domain, HostdevError, Registry, open_connection
from hostdev_core.simulated import SimulatedHost

def use_up(left):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for fd in taken[len(taken) - left:]:
            os.close(fd)

registry = Registry()
registry.register(hostdev_qemu, name="qemu")
host = SimulatedHost.open(sys.argv[1])
with open_connection("qemu:///system", host=host, registry=registry, read_only=True) as conn:
    conn.plan(Domain("vm0", ["0000:09:00.0"]))  # needs no module, and imports what a plan does
    {before}
    try:
        conn.plan(Domain("vm1", ["0000:01:00.0"]))
        print("planned")
    except (HostdevError, OSError) as error:
        print(type(error).__name__, error)
"""


def in_child(host: SimulatedHost, before: str) -> str:
    """What a plan says in a process that has lost something after all was imported."""
    code = _CHILD.replace("{before}", before)
    done = subprocess.run(
        [sys.executable, "-c", code, host.root], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


class TestWhatALoadBinds:
    """As on a real kernel: a driver that is registered tries every device without one."""

    @pytest.mark.parametrize("override", ["vfio-pci", "nobody", "none", None])
    def test_the_device_that_is_asked_for_returns_as_found(
        self, host: SimulatedHost, conn: Connection, override: str | None
    ) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override=override)
        lend_and_return(host, conn, IDLE)

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (CONFIGURATION, "options vfio-pci disable_vga=1 ids=8086:1533,8086:10d3\n"),
            (CONFIGURATION, "options vfio_pci ids=8086:ffffffff:ffffffff:ffffffff:020000:ff0000\n"),
            ("proc/cmdline", "vfio-pci.ids=8086:10D3\n"),
            ("proc/cmdline", 'vfio_pci.ids="0x8086:10d3"\n'),
        ],
    )
    def test_by_its_ids(self, host: SimulatedHost, conn: Connection, path: str, text: str) -> None:
        host.add_pci(IDLE, iommu_group=2)
        write(host, path, text)
        error = refuse(host, conn, NIC)
        assert error.rule == "module-ids"
        assert IDLE in str(error)
        assert path in error.evidence[0]
        lend_and_return(host, conn, NIC, IDLE)

    def test_by_its_driver_override(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override="vfio-pci")
        error = refuse(host, conn, NIC)
        assert error.rule == "module-ids"
        assert error.evidence == (f"{IDLE} (its driver_override is 'vfio-pci')",)
        lend_and_return(host, conn, NIC, IDLE)

    def test_what_it_does_not_match_is_in_nobody_s_way(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        write(host, CONFIGURATION, "options vfio-pci ids=8086:1533,nonsense,8086\n")
        host.add_pci(IDLE, iommu_group=2)
        host.add_pci(OTHER, id="8086:1533", iommu_group=3, driver_override="none")
        lend_and_return(host, conn, NIC)

    def test_a_driver_whose_name_is_known_after_the_load_only(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        host.add_driver("acme", module="nic_vfio", loaded=False, variant_for="8086:10d3")
        host.add_pci(IDLE, id="8086:1533", iommu_group=2, driver_override="acme")
        assert refuse(host, conn, NIC).rule == "module-ids"
        host.sysfs.write(f"bus/pci/devices/{IDLE}/driver_override", "\n")
        host.add_pci(OTHER, iommu_group=3, driver_override="acme")
        assert refuse(host, conn, OTHER).rule == "module-ids"
        host.sysfs.write(f"bus/pci/devices/{OTHER}/driver_override", "\n")
        host.add_driver("acme-vfio-pci", module="acme", loaded=False, variant_for="8086:1572")
        host.add_pci(LATE, id="8086:1572", iommu_group=4)
        lend_and_return(host, conn, LATE)

    def test_by_a_module_that_comes_along(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_driver("igb", module="igb", loaded=False, ids=["8086:1533"])
        host.add_pci(IDLE, id="8086:1533", iommu_group=2)
        file = Path(host.path(f"lib/modules/{RELEASE}/modules.dep"))
        lists = file.read_text()
        file.write_text(lists.replace("/vfio_pci.ko:", "/vfio_pci.ko: kernel/drivers/igb.ko"))
        for devices in ([NIC], [IDLE]):
            error = refuse(host, conn, *devices)
            assert error.evidence == (f"{IDLE} (igb comes along, and drives it)",)
        file.write_text(lists)
        write(host, CONFIGURATION, "softdep vfio-pci pre: igb\n")
        assert refuse(host, conn, NIC).rule == "module-ids"

    def test_a_device_that_does_not_answer(self, host: SimulatedHost, conn: Connection) -> None:
        host.add_pci(IDLE, iommu_group=2)
        override = f"bus/pci/devices/{IDLE}/driver_override"
        host.on_write(override, hang=True)
        code = "import sys; from hostdev_core.simulated import SimulatedHost as H"
        code += f"; H.open(sys.argv[1]).sysfs.write({override!r}, 'x')"
        writer = subprocess.Popen([sys.executable, "-c", code, host.root])
        try:
            host.wait_hanging()
            with pytest.raises(KernelTimeoutError, match=IDLE):
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            assert host.ledger.records() == []
            assert not host.modules.is_loaded("vfio_pci")
        finally:
            host.release()
            writer.wait()

    def test_a_load_that_fails_leaves_it_as_found(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        host.add_pci(IDLE, iommu_group=2, driver_override="vfio-pci")
        host.on_write("modprobe", errno=errno.EPERM)
        with Untouched(host), pytest.raises(Exception, match="vfio_pci"):
            conn.prepare_hostdevs(Domain("vm1", [IDLE]))

    @pytest.mark.long
    def test_whoever_is_killed_or_fails_meanwhile(self) -> None:
        scenario = "prepare what the load binds"
        report = run(Job(QEMU, FILE, scenario, ("process killed", "EIO", "no effect")))
        assert report.losses == []
        assert report.points["process killed"] > 10


class Acme(LocalHostdevDriver):
    """Takes what a module of another name brings."""

    name = "acme"
    uri_schemes = ("acme",)
    stubs = ("acme_uio",)
    stub_modules = {"acme_uio": "acme_module"}


class AcmePlugin:
    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        return [Acme()]


def test_a_stub_of_another_name_than_its_module(host: SimulatedHost) -> None:
    host.add_driver("acme_uio", module="acme_module", loaded=False, variant_for="8086:10d3")
    host.add_pci(IDLE, iommu_group=2, driver_override="acme_uio")
    conn = connect(host, AcmePlugin(), uri="acme:///system")
    before = host.snapshot()
    with pytest.raises(NotAssignableError, match=IDLE):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before
    conn.prepare_hostdevs(Domain("vm1", [NIC, IDLE]))
    assert {host.snapshot()[name]["kernel_driver"] for name in (NIC, IDLE)} == {"acme_uio"}
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
