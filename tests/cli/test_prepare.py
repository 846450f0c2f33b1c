"""`hostdev prepare` and `reattach`: what they change, print and return."""

import os
import shlex

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, addresses, ask, run, run_as_nobody
from tests.sample import NIC, OTHER

pytestmark = pytest.mark.sample

UNBIND = "*/e1000e/unbind"


def test_prepare_prints_words_for_qemu_and_reattach_gives_back(host: SimulatedHost) -> None:
    before = host.snapshot()
    done = run("prepare", "vm1", "01:00.0", "1-3", *QEMU, host=host)
    assert done.returncode == 0
    assert shlex.split(done.stdout) == [
        *("-device", f"vfio-pci,host={NIC}"),
        *("-device", "usb-host,hostbus=1,hostport=3"),
    ]
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    assert addresses(host) == [NIC, "1-3"]
    done = run("reattach", "vm1", host=host)
    assert (done.returncode, done.stdout.count("is given back")) == (0, 2)
    assert host.snapshot() == before
    assert addresses(host) == []


def test_prepare_in_json(host: SimulatedHost) -> None:
    (assignment,) = ask("prepare", "vm1", "01:00.0", host=host)["assignments"]
    assert assignment["address"] == NIC
    assert assignment["node"].endswith("/dev/vfio/1")
    assert ask("reattach", "vm1", host=host)["returned"] == [NIC]


def test_a_second_domain_is_refused_and_nothing_changes(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", host=host)
    before = host.snapshot()
    done = run("prepare", "vm2", "02:00.0", "01:00.0", host=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"hostdev: {NIC} is in use by domain 'vm1' of qemu (qemu:///system);"
        " `hostdev reattach vm1` gives it back [lent]\n"
    )
    assert host.snapshot() == before
    assert run("prepare", "vm1", "01:00.0", "--same-owner", host=host).returncode == 0


def test_a_kernel_that_refuses_is_exit_code_1_after_the_undo(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", errno=22)
    done = run("prepare", "vm1", "01:00.0", host=host)
    assert done.returncode == 1
    assert "EINVAL" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.snapshot() == before
    assert addresses(host) == []


def test_an_undo_that_fails_is_exit_code_3(host: SimulatedHost) -> None:
    host.on_write("*/vfio-pci/bind", errno=22)
    host.on_write("*/e1000e/bind", errno=5)
    done = run("prepare", "vm1", "01:00.0", host=host)
    assert done.returncode == 3
    assert "could not be given back" in done.stderr
    assert run("status", host=host).returncode == 3
    assert run("recover", host=host).returncode == 0
    assert addresses(host) == []


def test_reattach_tells_every_error_on_a_line_of_its_own(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "02:00.0", "1-1", host=host)
    host.on_write("*/e1000e/bind", errno=5, count=2)
    done = run("reattach", "vm1", host=host)
    assert done.returncode == 3
    first, *rest = done.stderr.splitlines()
    assert first == f"hostdev: not given back: {NIC}, {OTHER}"
    assert [line.startswith("  ") for line in rest] == [True, True]
    assert ask("status", host=host)["stuck"] == [NIC, OTHER]
    assert run("recover", host=host).returncode == 0


def test_reattach_of_some_devices(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "02:00.0", "1-1", host=host)
    run("reattach", "vm1", "02:00.0", "1-1", host=host)
    assert addresses(host) == [NIC]


def test_reattach_of_nothing_says_where_the_devices_are(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "-c", f"test://{host.root}")
    done = run("reattach", "vm1", *QEMU, host=host)
    assert done.returncode == 0
    assert "holds nothing under qemu:///system" in done.stdout
    assert f"{NIC} is held by domain 'vm1' of test (test://{host.root})" in done.stdout


def test_whole_group_stub_and_unmanaged(host: SimulatedHost) -> None:
    before = host.snapshot()
    assert run("prepare", "vm1", "01:00.0", "--unmanaged", host=host).returncode == 1
    assert run("prepare", "vm1", "03:00.0", host=host).returncode == 1
    words = ("03:00.0", "--whole-group", "--stub", "pci-stub")
    assert run("prepare", "vm1", *words, host=host).returncode == 1  # QEMU opens VFIO devices only
    place = ("-c", f"test://{host.root}")
    assert run("prepare", "vm1", *words, *place).returncode == 0
    assert host.snapshot()["0000:03:00.0"]["kernel_driver"] == "pci-stub"
    assert run("reattach", "vm1", *place).returncode == 0
    assert host.snapshot() == before


def test_verbose_tells_steps_and_writes(host: SimulatedHost) -> None:
    steps = run("prepare", "vm1", "01:00.0", "-v", host=host).stderr
    assert f"hostdev: unbind {NIC} from e1000e\n" in steps
    assert "driver_override" in steps
    assert "write " not in steps
    writes = run("reattach", "vm1", "-vv", host=host).stderr
    assert "write '0000:01:00.0' to" in writes
    assert run("prepare", "vm1", "01:00.0", host=host).stderr == ""


def test_an_environment_variable_names_the_connection(host: SimulatedHost) -> None:
    env = {**os.environ, "HOSTDEV_DEFAULT_URI": f"test://{host.root}"}
    assert run("prepare", "vm1", "01:00.0", env=env).returncode == 0
    assert host.ledger.records()[0].backend == "test"


def test_others_may_not_change_the_real_machine() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    done = run_as_nobody("prepare", "vm1", "00:00.0", *QEMU)
    assert done.returncode == 1
    assert done.stderr.startswith("hostdev: ")
    assert "root" in done.stderr
