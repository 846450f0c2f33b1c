"""One ledger for one host: who sees another one, or cannot tell, changes nothing and says so."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import Domain, Host, StateError, open_connection
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.state import HostdevState
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, clean_environment, run
from tests.helpers.namespaces import (
    OWN_PROCESSES,
    OWN_RUN,
    READ_ONLY_USR,
    can_unshare,
    inside,
    needs_host,
    needs_namespaces,
)
from tests.sample import NIC, make_registry


@needs_namespaces
@pytest.mark.parametrize("place", [OWN_RUN, OWN_PROCESSES], ids=["a /run", "processes"])
class TestWithNamespacesOfItsOwn:
    @pytest.mark.parametrize("words", [
        ("status",), ("status", "--json"), (*QEMU, "plan", "vm1", NIC),
        (*QEMU, "prepare", "vm1", NIC), (*QEMU, "device", "detach", NIC),
        (*QEMU, "reattach", "vm1"), (*QEMU, "recover"),
        (*QEMU, "device", "forget", NIC, "--as-is"),
    ], ids=" ".join)  # fmt: skip
    def test_nothing_is_changed_or_called_free(
        self, place: tuple[str, ...], words: tuple[str, ...]
    ) -> None:
        code, out, said = inside(place, *words)
        assert code == 1
        assert ([*json.loads(out)] if "--json" in words else out) == (
            ["error"] if "--json" in words else ""
        )
        assert "what is lent on this host cannot be known" in said
        assert "--state-dir" in said

    def test_list_shows_unknown(self, place: tuple[str, ...]) -> None:
        code, out, said = inside(place, "list")
        assert code == 0
        assert "cannot be known" in said
        assert not any(line.endswith("free") for line in out.splitlines())

    def test_a_state_directory_that_is_named_is_taken(
        self, place: tuple[str, ...], tmp_path: Path
    ) -> None:
        state = tmp_path / "state"
        empty = (0, "nothing is lent, detached or stuck\n", "")
        assert inside(place, "status", "--state-dir", str(state)) == empty
        assert inside(place, "status", HOSTDEV_STATE_DIR=str(state)) == empty
        assert inside(place, *QEMU, "recover", "--state-dir", str(state))[0] == 0
        assert (state / "state.db").exists()


@needs_host
def test_the_host_itself_and_a_sandbox_that_shares_its_run_are_not_doubted() -> None:
    assert Host().ledger_doubt() is None
    if can_unshare():
        assert "cannot be known" not in inside(READ_ONLY_USR, "status")[2]


@needs_host
@needs_namespaces
def test_without_the_right_to_look_at_process_1() -> None:
    """Every user may read what is mounted where."""
    code = "from hostdev_core import Host; print(Host().ledger_doubt())"
    words = f"import os; os.setuid(65534); {code}"
    python = [sys.executable, "-c", f"import hostdev_core.ledger.place, hostdev_core.host; {words}"]
    for place, wanted in (((), "None\n"), (OWN_RUN, "/run/hostdev is not the host's here")):
        done = subprocess.run([*place, *python], capture_output=True, text=True, check=False)
        assert done.stdout.startswith(wanted), done.stderr


@needs_host
@needs_namespaces
def test_a_directory_of_the_host_s_that_is_mounted_in_its_place(tmp_path: Path) -> None:
    """What counts is the directory itself, where there is one on both sides; /run may differ."""
    made = not os.path.exists("/run/hostdev")
    os.makedirs("/run/hostdev", mode=0o700, exist_ok=True)
    held = shlex.quote(str(tmp_path))
    shares = (
        f"mount --bind /run/hostdev {held} && mount -t tmpfs own /run && mkdir -m 700 /run/hostdev"
        f' && mount --bind {held} /run/hostdev && exec "$@"'
    )
    hides = f'mount --bind {held} /run/hostdev && exec "$@"'
    try:
        for script, is_known in ((shares, True), (hides, False)):
            said = inside(("unshare", "--mount", "sh", "-c", script, "sh"), "status")[2]
            assert ("cannot be known" not in said) is is_known, said
    finally:
        if made:
            os.rmdir("/run/hostdev")


class Contained(SimulatedHost):
    """A machine of which nobody knows whether its ledger is the host's."""

    def ledger_doubt(self) -> str | None:
        return "this test says so"


def test_every_call_refuses_on_a_host_that_cannot_know(tmp_path: Path) -> None:
    known = SimulatedHost.create(tmp_path / "machine")
    known.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    registry = make_registry()
    before = known.snapshot()
    with open_connection("qemu:///system", host=known, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    lent = known.snapshot()
    host = Contained(known.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        for call in (
            lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
            lambda: conn.plan(Domain("vm2", [NIC])),
            lambda: conn.reattach_hostdevs("vm1"),
            lambda: conn.detach_device(NIC),
            lambda: conn.reset_device(NIC),
            lambda: conn.recover(),
            lambda: conn.get_active_pci_hostdev_list(),
            lambda: HostdevState(host).inactive_pci,
        ):
            with pytest.raises(StateError, match="this test says so"):
                call()
    inventory = look(host, tolerant=True)
    assert inventory.records is None
    assert "this test says so" in (inventory.unread or "")
    assert known.snapshot() == lent
    with open_connection("qemu:///system", host=known, registry=registry) as conn:
        conn.reattach_hostdevs("vm1")
    assert known.snapshot() == before


def test_an_override_that_nobody_recorded_is_a_note(tmp_path: Path) -> None:
    """driverctl and boot scripts set them."""
    host = SimulatedHost.create(tmp_path / "machine")
    host.add_pci(NIC, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=1)
    registry = make_registry()
    before = host.snapshot()
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        warning, whence = conn.plan(Domain("vm1", [NIC])).warnings
        assert f"{NIC} has driver_override 'vfio-pci'" in warning
        assert "where it was before is not known" in whence
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_simulated_machine_has_its_own(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "machine")
    done = run("status", "--state-dir", str(tmp_path), host=host)
    assert done.returncode == 2
    assert "the simulated one of --host has its own" in done.stderr
    done = run("status", host=host, env=clean_environment(HOSTDEV_STATE_DIR="/nowhere"))
    assert done.returncode == 0
