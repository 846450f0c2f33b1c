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

from hostdev_core import (
    Connection,
    Domain,
)
from hostdev_core.kernel.modprobe import LARGEST
from hostdev_core.simulated import SimulatedHost
from tests.helpers import modules
from tests.helpers.modules import (
    CONFIGURATION,
    NIC,
    RELEASE,
    lend_and_return,
    make_host,
    refuse,
    warnings,
    write,
)

host, conn = modules.host, modules.conn


def make_pipe(path: str) -> None:
    """A pipe in a file's place keeps nobody waiting."""
    Path(path).unlink(missing_ok=True)
    os.mkfifo(path)


def make_huge(path: str) -> None:
    Path(path).write_bytes(b"#" * (LARGEST + 1))


def make_loop(path: str) -> None:
    Path(path).symlink_to(path)


def make_failing(path: str) -> None:
    """A file that opens, and whose read the kernel answers with EIO."""
    Path(path).symlink_to("/proc/self/mem")


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
            (CONFIGURATION, "#\ninstall vfio_pci /bin/false \\", ":2 disables"),
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
        make_pipe, make_huge, make_loop, make_failing,
    ], ids=["pipe", "huge", "loop", "EIO"])  # fmt: skip
    @pytest.mark.parametrize("place", [CONFIGURATION, "proc/cmdline"])
    def test_is_refused(
        self, host: SimulatedHost, conn: Connection, spoil: Callable[[str], object], place: str
    ) -> None:
        Path(host.path(place)).unlink(missing_ok=True)
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
