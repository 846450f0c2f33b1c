"""Writes that fail, take their time, hang or only pretend, and what others see meanwhile."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from hostdev_core.errors import KernelError, KernelTimeoutError
from hostdev_core.runtime.deadlines import Deadlines
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import wait_until
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

PATH = f"bus/pci/devices/{NIC}"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3)
    host.modules.load("vfio-pci")
    host.clear_writes()
    return host


def attempt(host: SimulatedHost, path: str, value: str) -> str:
    try:
        host.sysfs.write(path, value)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def in_another_process(host: SimulatedHost, code: str) -> subprocess.Popen[str]:
    """Run code with `host` there; what it prints can be read."""
    program = (
        "from hostdev_core.simulated import SimulatedHost\n"
        f"host = SimulatedHost.open({host.root!r})\n{code}"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_the_log_has_every_write_in_order(host: SimulatedHost) -> None:
    attempt(host, f"{PATH}/power/control", "auto")
    attempt(host, f"{PATH}/nonsense", "1")
    with in_another_process(host, f"host.sysfs.write('{PATH}/power/control', 'on')") as other:
        assert other.wait() == 0
    assert host.writes() == [
        (f"{PATH}/power/control", "auto"),
        (f"{PATH}/nonsense", "1"),
        (f"{PATH}/power/control", "on"),
    ]
    host.clear_writes()
    assert host.writes() == []


def test_an_errno_has_no_effect_and_is_used_up(host: SimulatedHost) -> None:
    host.on_write("*/driver_override", errno=errno.EIO, count=2, value="vfio-pci")
    answers = [
        attempt(host, f"{PATH}/driver_override", value)
        for value in ("pci-stub", "vfio-pci", "vfio-pci\n", "vfio-pci")
    ]
    assert answers == ["ok", "EIO", "EIO", "ok"]


def test_the_first_that_matches_is_used(host: SimulatedHost) -> None:
    host.on_write("*/unbind", errno=errno.EPERM)
    host.on_write("bus/pci/drivers/e1000e/*", errno=errno.EIO)
    answers = [attempt(host, f"{PATH}/driver/unbind", NIC) for _ in range(3)]
    assert answers == ["EPERM", "EIO", "ok"]


def test_a_write_may_only_pretend(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*", effect=False, count=2)
    assert attempt(host, f"{PATH}/driver/unbind", NIC) == "ok"
    assert attempt(host, f"{PATH}/driver_override", "vfio-pci") == "ok"
    assert host.snapshot() == before


def test_a_delay(host: SimulatedHost) -> None:
    host.on_write("*/unbind", delay=0.1)
    start = time.monotonic()
    assert attempt(host, f"{PATH}/driver/unbind", NIC) == "ok"
    assert time.monotonic() - start >= 0.1


def test_what_waits_while_an_unbind_hangs(host: SimulatedHost) -> None:
    """The same questions were asked of a real kernel, with a device that was held open."""
    host.on_write("*/unbind", hang=True)
    at_once: dict[str, Callable[[], object]] = {
        "unbind other": lambda: attempt(host, "bus/pci/drivers/vfio-pci/unbind", NIC),
        "probe": lambda: attempt(host, "bus/pci/drivers_probe", NIC),
        "bind other": lambda: attempt(host, "bus/pci/drivers/vfio-pci/bind", NIC),
        "bad reset": lambda: attempt(host, f"{PATH}/reset", "0"),
        "long": lambda: attempt(host, f"{PATH}/driver_override", "x" * 4095),
        "methods": lambda: attempt(host, f"{PATH}/reset_method", "flr bus"),
        "modalias": lambda: (host.sysfs.read(f"{PATH}/modalias") or "")[:4],
        "power": lambda: host.sysfs.read(f"{PATH}/power/control"),
        "link": lambda: host.sysfs.link(f"{PATH}/driver"),
        "list": lambda: host.sysfs.names("bus/pci/drivers/e1000e").count(NIC),
    }
    later: dict[str, Callable[[], object]] = {
        "unbind": lambda: attempt(host, "bus/pci/drivers/e1000e/unbind", NIC),
        "bad power": lambda: attempt(host, f"{PATH}/power/control", "off"),
        "reset": lambda: attempt(host, f"{PATH}/reset", "1"),
        "override": lambda: attempt(host, f"{PATH}/driver_override", "\n"),
        "uevent": lambda: (host.sysfs.read(f"{PATH}/uevent") or "")[:9],
        "read": lambda: host.sysfs.read(f"{PATH}/driver_override"),
        "directory": lambda: read_in_directory(host),
    }
    with ThreadPoolExecutor(16) as pool:
        first: Future[object] = pool.submit(attempt, host, f"{PATH}/driver/unbind", NIC)
        assert host.wait_hanging() == [(f"{PATH}/driver/unbind", NIC)]
        waiting = {name: pool.submit(ask) for name, ask in later.items()}
        wait_until(lambda: len(host.writes()) > 4)  # those who are to wait have begun
        assert {name: ask() for name, ask in at_once.items()} == {
            "unbind other": "ENODEV", "probe": "ok", "bind other": "ENODEV", "bad reset": "EINVAL",
            "long": "EINVAL", "methods": "ok", "modalias": "pci:", "power": "on", "link": None,
            "list": 0,
        }  # fmt: skip
        time.sleep(0.05)
        assert not any(future.done() for future in (first, *waiting.values()))
        host.release()
        assert answers(waiting) == {
            "unbind": "ok", "bad power": "EINVAL", "reset": "ok", "override": "ok",
            "uevent": "PCI_CLASS", "read": "(null)", "directory": "(null)",
        }  # fmt: skip
        assert first.result(60) == "ok"
    assert host.hanging() == []


def read_in_directory(host: SimulatedHost) -> str | None:
    with host.sysfs.directory("bus/pci/devices") as devices:
        return devices.read(f"{NIC}/driver_override") if devices else None


def answers(futures: dict[str, Future[object]]) -> dict[str, object]:
    return {name: future.result(60) for name, future in futures.items()}


def test_a_bind_hangs_in_the_probe(host: SimulatedHost) -> None:
    host.sysfs.write(f"{PATH}/driver_override", "vfio-pci")
    host.sysfs.write(f"{PATH}/driver/unbind", NIC)
    host.on_write("bus/pci/drivers/*/bind", hang=True)
    writer = threading.Thread(target=attempt, args=(host, "bus/pci/drivers/vfio-pci/bind", NIC))
    writer.start()
    host.wait_hanging()
    assert host.sysfs.link(f"{PATH}/driver") == "vfio-pci"
    assert not os.path.exists(host.path("dev/vfio/3"))
    host.release()
    writer.join()
    assert os.path.exists(host.path("dev/vfio/3"))


def test_a_card_that_is_pulled_while_a_write_hangs(host: SimulatedHost) -> None:
    host.on_write("*/unbind", hang=True)
    with ThreadPoolExecutor() as pool:
        old = pool.submit(attempt, host, f"{PATH}/driver/unbind", NIC)
        host.wait_hanging()
        host.unplug(NIC)
        host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3)
        before = host.snapshot()
        assert attempt(host, f"{PATH}/power/control", "on") == "ok"
        host.release()
        assert old.result(60) == "ok"
    assert host.snapshot() == before


def test_a_module_that_does_not_load(host: SimulatedHost) -> None:
    quick = SimulatedHost.open(host.root, deadlines=Deadlines(load=0.05))
    quick.on_write("modprobe", errno=errno.ENOEXEC)
    quick.on_write("modprobe", hang=True)
    with pytest.raises(KernelError, match="Exec format error"):
        host.modules.load("pci-stub")
    with pytest.raises(KernelTimeoutError):
        quick.modules.load("pci-stub")
    assert not quick.modules.is_loaded("pci-stub")
    host.modules.load("pci-stub")
    assert quick.modules.is_loaded("pci-stub")
    assert host.writes() == [("modprobe", "pci-stub")] * 3


@pytest.mark.parametrize("state", ["driver/unbind", "bind"])
def test_a_killed_writer_breaks_nothing(host: SimulatedHost, state: str) -> None:
    before = host.snapshot()
    path = f"{PATH}/{state}"
    if state == "bind":
        host.sysfs.write(f"{PATH}/driver/unbind", NIC)
        path = "bus/pci/drivers/e1000e/bind"
    host.on_write("*bind", hang=True)
    with in_another_process(host, f"host.sysfs.write({path!r}, {NIC!r})") as writer:
        host.wait_hanging()
        writer.send_signal(signal.SIGKILL)
    assert host.hanging() == []
    assert host.sysfs.link(f"{PATH}/driver") == ("e1000e" if state == "bind" else None)
    expected = "EBUSY" if state == "bind" else "ok"
    assert attempt(host, "bus/pci/drivers/e1000e/bind", NIC) == expected
    assert host.snapshot() == before
    assert host.sysfs.exists(f"bus/pci/drivers/e1000e/{NIC}")
    assert os.listdir(f"{host.root}/.kernel/busy") == []


@pytest.mark.parametrize("path", ["igb/unbind", "igb/bind"])
def test_virtual_functions_go_whoever_was_killed_at_work_on_one(
    host: SimulatedHost, path: str
) -> None:
    physical, virtual = "0000:05:00.0", "0000:05:00.1"
    host.add_pci(physical, kernel_driver="igb", id="8086:1521", sriov_totalvfs=2)
    before, numvfs = host.snapshot(), f"bus/pci/devices/{physical}/sriov_numvfs"
    host.sysfs.write(numvfs, "2")
    if path == "igb/bind":
        host.sysfs.write("bus/pci/drivers/igb/unbind", virtual)
    host.on_write("*bind", hang=True)
    with in_another_process(
        host, f"host.sysfs.write('bus/pci/drivers/{path}', {virtual!r})"
    ) as dies:
        host.wait_hanging()
        dies.send_signal(signal.SIGKILL)
    host.sysfs.write(numvfs, "0")
    assert host.snapshot() == before
    assert os.listdir(f"{host.root}/.kernel/busy") == []


def test_a_holder_in_another_process_is_found(host: SimulatedHost) -> None:
    host.sysfs.write(f"{PATH}/driver_override", "vfio-pci")
    host.sysfs.write(f"{PATH}/driver/unbind", NIC)
    host.sysfs.write("bus/pci/drivers/vfio-pci/bind", NIC)
    code = (
        "import time\n"
        f"with host.hold({NIC!r}):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with in_another_process(host, code) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match="busy") as caught:
            host.open_node("dev/vfio/3")
        assert caught.value.errno == errno.EBUSY
        assert [found.pid for found in host.holders(["dev/vfio/3"])] == [holder.pid]
        holder.kill()
    os.close(host.open_node("dev/vfio/3"))


def test_many_processes_at_once(host: SimulatedHost) -> None:
    """All of them move the same few cards; in the end each card is in one well-formed state."""
    cards = [f"0000:02:{number:02x}.0" for number in range(4)]
    for card in cards:
        host.add_pci(card, kernel_driver="e1000e", iommu_group=7)
    code = (
        "import json, random\n"
        "from hostdev_core.errors import KernelError\n"
        f"cards = {cards!r}; seen = set()\n"
        "for turn in range(10):\n"
        "    card = random.choice(cards); stub = random.choice(['vfio-pci', 'e1000e'])\n"
        "    for path, value in ((f'bus/pci/devices/{card}/driver_override', stub),\n"
        "                        (f'bus/pci/devices/{card}/driver/unbind', card),\n"
        "                        (f'bus/pci/drivers/{stub}/bind', card)):\n"
        "        try: host.sysfs.write(path, value)\n"
        "        except KernelError as error: seen.add(error.errno)\n"
        "print(json.dumps(sorted(seen)))\n"
    )
    writers = [in_another_process(host, code) for _ in range(16)]
    seen: set[int] = set()
    for writer in writers:
        out, _ = writer.communicate()
        assert writer.returncode == 0
        seen |= set(json.loads(out))
    assert seen <= {errno.ENODEV, errno.EBUSY, errno.ENOENT}
    assert len(host.writes()) == 16 * 10 * 3
    for card in cards:
        bound = host.sysfs.link(f"bus/pci/devices/{card}/driver")
        for driver in ("vfio-pci", "e1000e"):
            assert host.sysfs.exists(f"bus/pci/drivers/{driver}/{card}") == (driver == bound)
    drivers = {host.sysfs.link(f"bus/pci/devices/{card}/driver") for card in cards}
    assert os.path.exists(host.path("dev/vfio/7")) == ("vfio-pci" in drivers)
    assert os.listdir(f"{host.root}/.kernel/busy") == []
