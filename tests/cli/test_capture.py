"""`hostdev capture`, `hostdev replay` and `--host FILE`, as a person uses them."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import InputError, open_connection
from hostdev_core.simulated import SimulatedHost, make_sample
from tests.helpers.cli_command import COMMAND, MODPROBE, QEMU, clean_environment, run, run_as_nobody
from tests.sample import NIC


@pytest.fixture
def sample(tmp_path: Path) -> SimulatedHost:
    return make_sample(tmp_path / "host")


@pytest.fixture
def file(sample: SimulatedHost, tmp_path: Path) -> str:
    path = tmp_path / "machine.json"
    path.write_text(SimulatedHost.capture(f"{sample.root}/sys"))
    return str(path)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where temporary files are made; it must be empty afterwards."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def temporary(folder: Path) -> dict[str, str]:
    return clean_environment(TMPDIR=str(folder))


def test_capture_to_standard_output_and_to_a_file(sample: SimulatedHost, tmp_path: Path) -> None:
    before = sample.snapshot()
    shown = run("capture", host=sample)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == SimulatedHost.capture(f"{sample.root}/sys")
    assert run("capture", "-", host=sample).stdout == shown.stdout
    path = tmp_path / "machine.json"
    done = run("capture", str(path), "--serials", host=sample)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 PCI functions, 3 USB devices" in done.stdout
    assert path.read_text() == SimulatedHost.capture(f"{sample.root}/sys", serials=True)
    assert sample.snapshot() == before
    assert sample.writes() == []


def test_capture_overwrites_nothing(sample: SimulatedHost, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    done = run("capture", str(path), host=sample)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is there already; remove it first" in done.stderr
    assert path.read_text() == "mine"
    done = run("capture", str(tmp_path / "none" / "machine.json"), host=sample)
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_half_a_description_is_not_left(sample: SimulatedHost, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    words = ["bash", "-c", 'ulimit -f 1; exec "$@"', "limited", *COMMAND, "capture", str(path)]
    done = subprocess.run(
        [*words, "--host", sample.root], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert os.strerror(errno.EFBIG) in done.stderr
    assert not path.exists()


def test_a_machine_that_cannot_be_read_is_named(sample: SimulatedHost, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    folder = Path(sample.path("sys/bus/pci/devices"))
    folder.rename(folder.with_name("kept"))
    folder.symlink_to("devices")  # ELOOP, for root too
    done = run("capture", str(path), host=sample)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"hostdev: cannot describe {sample.root}/sys: " in done.stderr
    assert os.strerror(errno.ELOOP) in done.stderr
    assert not path.exists()


def test_capture_of_this_machine_needs_no_rights(tmp_path: Path) -> None:
    done = run_as_nobody("capture")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines == [] if MODPROBE else all("modprobe cannot be asked" in line for line in lines)
    assert json.loads(done.stdout)["kernel"] == os.uname().release


def test_capture_counts_what_it_leaves_out(sample: SimulatedHost, tmp_path: Path) -> None:
    for name in "modalias", "class":
        os.unlink(f"{sample.root}/sys/bus/pci/devices/{NIC}/{name}")
    done = run("capture", str(tmp_path / "machine.json"), host=sample)
    assert done.returncode == 0
    assert f"left out: pci {NIC}: it tells neither modalias nor" in done.stderr
    assert ", 1 left out" in done.stdout


def test_capture_does_not_wait_for_a_device_that_hangs(sample: SimulatedHost) -> None:
    path = f"bus/pci/devices/{NIC}/driver/unbind"
    sample.on_write(path, hang=True)
    program = """if True:
        import sys
        from hostdev_core.simulated import SimulatedHost
        SimulatedHost.open(sys.argv[1]).sysfs.write(sys.argv[2], sys.argv[3])"""
    with subprocess.Popen([sys.executable, "-c", program, sample.root, path, NIC]) as writer:
        try:
            sample.wait_hanging()
            done = run("capture", host=sample)
        finally:
            sample.release()
        assert writer.wait(timeout=60) == 0
    assert done.returncode == 0
    assert f"{NIC}: driver_override: the kernel did not answer" in done.stderr
    assert "unread" in json.loads(done.stdout)["pci"][NIC]


@pytest.mark.long
def test_a_command_on_a_file_has_a_machine_of_its_own(
    sample: SimulatedHost, file: str, scratch: Path
) -> None:
    environment = temporary(scratch)
    shown = run("list", "--host", file, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == run("list", host=sample).stdout
    for words in (["show", NIC], ["status"], ["plan", "vm1", NIC], ["capture"]):
        assert run(*words, *QEMU, "--host", file, env=environment).returncode == 0
    for _ in range(2):  # the second one finds what the first one found
        lent = run("prepare", "vm1", NIC, *QEMU, "--host", file, env=environment)
        assert (lent.returncode, lent.stdout) == (0, f"-device vfio-pci,host={NIC}\n")
    refused = run("prepare", "vm1", "03:00.0", *QEMU, "--host", file, env=environment)
    assert refused.returncode == 1
    assert "0000:03:00.1" in refused.stderr
    assert os.listdir(scratch) == []


def test_a_replayed_machine_stays(file: str, tmp_path: Path, sample: SimulatedHost) -> None:
    folder = str(tmp_path / "replayed")
    done = run("replay", file, folder)
    assert (done.returncode, done.stderr) == (0, "")
    host = SimulatedHost.open(folder)
    assert host.snapshot() == sample.snapshot()
    assert run("prepare", "vm1", NIC, *QEMU, host=host).returncode == 0
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    assert run("reattach", "vm1", *QEMU, host=host).returncode == 0
    assert host.snapshot() == sample.snapshot()
    again = run("replay", file, folder)
    assert again.returncode == 2
    assert "not an empty directory" in again.stderr


@pytest.mark.parametrize("words", [["list"], ["replay", "DIR"], ["prepare", "vm1", NIC, *QEMU]])
def test_a_bad_file_is_a_usage_error(words: list[str], scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"format": "hostdev-machine", "version": 1}')
    if words[0] == "replay":
        words = ["replay", str(path), str(tmp_path / "replayed")]
    else:
        words = [*words, "--host", str(path)]
    done = run(*words, env=temporary(scratch))
    assert done.returncode == 2
    assert done.stderr == f"hostdev: {path}: kernel is missing\n"
    assert os.listdir(scratch) == []
    assert not (tmp_path / "replayed").exists()


def test_a_uri_of_a_file(file: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(scratch))
    program = f"""
from hostdev_core import open_connection
with open_connection("test://{file}") as conn:
    before = conn.host.snapshot()
    (lent,) = conn.prepare_hostdevs(__import__("hostdev_core").Domain("vm1", ["{NIC}"]))
    conn.reattach_hostdevs("vm1")
    assert conn.host.snapshot() == before
    print(*lent.arguments)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=temporary(scratch)
    )
    assert (done.stdout, done.stderr) == (f"device pci {NIC}\n", "")
    assert os.listdir(scratch) == []
    with pytest.raises(InputError, match="is no JSON"):
        open_connection(f"test://{__file__}")


def test_a_uri_of_a_directory_leaves_it(sample: SimulatedHost) -> None:
    with open_connection(f"test://{sample.root}") as conn:
        conn.detach_device(NIC)
    assert SimulatedHost.open(sample.root).snapshot()[NIC]["kernel_driver"] == "vfio-pci"
