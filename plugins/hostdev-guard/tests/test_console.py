"""The GPU that the host's console is on."""

import pytest

from hostdev_core import VetoError
from machines import Machine

GPU, OTHER = "0000:01:00.0", "0000:02:00.0"
FIRMWARES = f"the firmware's console (boot_vga) is on {GPU}"


def with_gpus(machine: Machine, first: str | None, second: str | None = "nouveau") -> None:
    """Two GPUs, the first of them the firmware's choice."""
    for address, driver, id_ in ((GPU, first, "8086:a780"), (OTHER, second, "10de:2204")):
        machine.add(address, driver, id=id_, class_="030000")
        machine.write(machine.folder(address) / "boot_vga", str(int(address == GPU)))


def test_the_firmwares_choice_on_a_host_driver(machine: Machine) -> None:
    with_gpus(machine, "i915")
    machine.framebuffer(machine.folder(GPU))
    assert machine.refused(GPU, OTHER) == {
        (GPU, "console-gpu"): (f"the console is on fb0, on {GPU}", FIRMWARES)
    }


def test_without_a_word_about_consoles(machine: Machine) -> None:
    with_gpus(machine, "i915")
    assert machine.refused(GPU, OTHER) == {(GPU, "console-gpu"): (FIRMWARES,)}


@pytest.mark.parametrize("stub", ["vfio-pci", "pci-stub"])
def test_a_gpu_that_the_host_has_let_go(machine: Machine, stub: str) -> None:
    with_gpus(machine, stub)
    machine.framebuffer(machine.folder(OTHER))
    machine.consoles(dummy=False, frame=True)
    assert machine.refused(GPU, OTHER) == {
        (OTHER, "console-gpu"): (f"the console is on fb0, on {OTHER}",)
    }


def test_a_gpu_without_driver_that_shows_the_firmwares_framebuffer(machine: Machine) -> None:
    with_gpus(machine, None)
    machine.framebuffer(machine.sys / "devices/platform/efi-framebuffer.0")
    machine.consoles(dummy=False, frame=True)
    assert machine.refused(GPU, OTHER) == {(GPU, "console-gpu"): (FIRMWARES,)}


def test_a_gpu_without_driver_that_shows_text(machine: Machine) -> None:
    with_gpus(machine, None)
    machine.consoles(vga=True)
    assert machine.refused(GPU, OTHER) == {(GPU, "console-gpu"): (FIRMWARES,)}


def test_a_gpu_without_driver_beside_the_one_of_the_console(machine: Machine) -> None:
    with_gpus(machine, None)
    machine.framebuffer(machine.folder(OTHER))
    machine.consoles(dummy=False, frame=True)
    assert machine.refused(GPU) == {}


def test_a_gpu_without_driver_and_framebuffer(machine: Machine) -> None:
    with_gpus(machine, None)
    machine.consoles(dummy=True)
    assert machine.refused(GPU) == {}


def test_consoles_that_nothing_shows(machine: Machine) -> None:
    with_gpus(machine, "i915")
    machine.framebuffer(machine.folder(GPU))
    machine.consoles(dummy=True, frame=False)
    assert machine.refused(GPU, OTHER) == {}


def test_other_functions_are_no_gpu(machine: Machine) -> None:
    machine.add(OTHER, "snd_hda_intel", id="10de:1aef", class_="040300")
    machine.write(machine.folder(OTHER) / "boot_vga", "1")
    assert machine.refused(OTHER) == {}


def test_a_reset_of_the_console_is_refused(machine: Machine) -> None:
    with_gpus(machine, None)
    machine.consoles(vga=True)
    with machine.connect() as conn:
        with pytest.raises(VetoError, match="console-gpu"):
            conn.reset_device(GPU)
        assert not machine.host.writes()
        conn.reset_device(GPU, allow=["console-gpu"])
    assert [path.rpartition("/")[2] for path, _ in machine.host.writes()] == ["reset"]
