"""What an installed distribution says of itself, and what its plugin brings, as bad as it can be."""

import os
import subprocess
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run
from tests.hostile.command import check_words
from tests.sample import NIC

MODULES = {
    "leaves": "raise SystemExit(3)",
    "printing": "print('hello')\nraise ValueError('\\x1b[2J' + 'x' * 10000)",
    "nothing": "from hostdev_core import hookimpl\n@hookimpl\ndef hostdev_drivers(): return None",
    "raising": "from hostdev_core import hookimpl\n@hookimpl\ndef hostdev_drivers():\n    yield 1 / 0",
    "leaving": "from hostdev_core import hookimpl\n@hookimpl\ndef hostdev_drivers(): raise SystemExit",
    "strange": "from hostdev_core import hookimpl\n@hookimpl\ndef hostdev_drivers(): return [7, None]",
    "odd": "class Odd:\n    def __getattr__(self, name): raise RuntimeError(name)\n"
    "    def __eq__(self, other): raise RuntimeError('eq')\n    __hash__ = None\nodd = Odd()",
}
ROW = """
from hostdev_core import LocalHostdevDriver, hookimpl
class Row(LocalHostdevDriver):
    {body}
@hookimpl
def hostdev_drivers(): return [Row()]
"""
ROWS = {
    "nameless": "uri_schemes, stubs = ('n1',), ('vfio-pci',)",
    "empty": "name, uri_schemes, stubs = '', ('n2',), ('vfio-pci',)",
    "onetext": "name, uri_schemes, stubs = 'onetext', 'qemu', ('vfio-pci',)",
    "number": "name, uri_schemes, stubs = 7, ('n3',), ('vfio-pci',)",
    "escape": "name, uri_schemes, stubs = 'e\\x1b[31m', ('n4',), ('vfio-pci',)",
    "badscheme": "name, uri_schemes, stubs = 'badscheme', ('n 5', None), ('vfio-pci',)",
    "taken": "name, uri_schemes, stubs = 'taken', ('qemu',), ('vfio-pci',)",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"hostile_{name}.py").write_text(text + "\n")
    for name, body in ROWS.items():
        (tmp_path / f"hostile_{name}.py").write_text(ROW.format(body=body))
    lines = [f"{name} = hostile_{name}" for name in (*MODULES, *ROWS)]
    lines[lines.index("odd = hostile_odd")] = "odd = hostile_odd:odd"
    lines += [
        "absent = no_such_module", "part = os:no.such.part", "syntax = os : : x", "space d = os",
        "\x1b[31mred = os", "empty value =", "qemu = hostile_nothing", "twice = os", "twice = sys",
    ]  # fmt: skip
    _install(tmp_path, "hostile", "Name: hostile\nVersion: 1\n", "[hostdev]\n" + "\n".join(lines))
    _install(tmp_path, "nameless", "", "[hostdev]\nanonymous = os\n")
    return tmp_path


def _install(folder: Path, name: str, metadata: str, entries: str) -> None:
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + metadata)
    (info / "entry_points.txt").write_text(entries)


@pytest.mark.long
def test_bad_plugins_are_named_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = run("plugins", env=env)
    assert done.returncode == 1
    _check(done)
    for name in (*MODULES, *ROWS, "absent", "part"):
        assert f"plugin '{name}' (hostile 1, entry point " in done.stderr, name
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    before = host.snapshot()
    for words in ((*QEMU, "prepare", "vm1", NIC), (*QEMU, "reattach", "vm1"), ("list",)):
        done = run(*words, host=host, env=env)
        assert done.returncode == 0
        _check(done)
    assert host.snapshot() == before


def _check(done: subprocess.CompletedProcess[str]) -> None:
    check_words("".join(done.stderr))
    assert len(done.stderr) < 30_000


def test_garbage_for_a_list_of_entry_points(tmp_path: Path) -> None:
    _install(
        tmp_path, "garbage", "Name: garbage\nVersion: 1\n", "[hostdev\n= = =\n[hostdev]\n:::\n"
    )
    done = run("plugins", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "qemu" in done.stdout
    _check(done)


GARBAGE = (",", " , ,", "*,*", "../..", "q" * 9999)


@pytest.mark.parametrize(
    "value",
    ["\x1b[31m", "\udcff", *(pytest.param(value, marks=pytest.mark.long) for value in GARBAGE)],
)
def test_garbage_in_the_variables(tmp_path: Path, value: str) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    for name in ("HOSTDEV_DISABLE_PLUGINS", "HOSTDEV_REQUIRE_PLUGINS", "HOSTDEV_DEFAULT_URI"):
        done = run("plan", "vm1", NIC, host=host, env=os.environ | {name: value})
        assert done.returncode in {0, 1, 2}
        _check(done)
    assert host.ledger.records() == []
