"""A backend written from the documentation alone, with nothing of hostdev there but its wheel."""

import ast
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "backends.md"
TITLE = "## A backend in 30 lines"
FEW = "comes_back or words_that_tell"
# The whole contract; of the calls that are disturbed at every moment, the shortest: all take minutes.
MOST = "not at_every and not every_change and not in_full or prepare and one and not in_full"


def run(*words: str | Path, folder: Path, code: int = 0) -> str:
    """Run a program in a folder of its own, without anything of this checkout; what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOSTDEV_", "PY"))}
    done = subprocess.run(
        words,
        cwd=folder,
        env=kept | {"PYTHONSAFEPATH": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def needed(names: list[str], seen: dict[str, Distribution]) -> dict[str, Distribution]:
    """The installed distributions of these names, and what they need."""
    for name in names:
        if name not in seen:
            seen[name] = distribution(name)
            wanted = map(Requirement, seen[name].requires or ())
            now = (w for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""}))
            needed([w.name for w in now], seen)
    return seen


def make_environment(folder: Path) -> Path:
    """A virtual environment with what hostdev[testing] needs, without hostdev; its programs."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    found = needed(["hostdev", "pytest", "mypy", "hatchling"], {})
    del found["hostdev"]
    for dist in found.values():
        for top in {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(dist.locate_file(top))))
    return folder / "bin"


def pip(programs: Path, *words: str | Path, folder: Path) -> None:
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    python = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*python, words[0], "--quiet", *offline, *words[1:], folder=folder)


def written_files() -> Iterator[tuple[str, str]]:
    """The names and the texts of the files that the page shows."""
    section = PAGE.read_text(encoding="utf-8").partition(f"{TITLE}\n")[2].partition("\n## ")[0]
    yield from re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", section, re.M | re.S)


def lines_of_code(text: str) -> int:
    """Lines that are neither blank nor comments nor docstrings."""
    lines = {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            docstring = node.body[0]
            lines -= {*range(docstring.lineno, (docstring.end_lineno or 0) + 1)}
    return len(lines)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chosen", [FEW, MOST])
def test_a_backend_from_the_documentation_alone(tmp_path: Path, chosen: str) -> None:
    folder, programs = tmp_path / "hostdev-new", make_environment(tmp_path / "venv")
    pip(programs, "wheel", ROOT, "--wheel-dir", tmp_path / "wheel", folder=tmp_path)
    pip(programs, "install", *(tmp_path / "wheel").glob("hostdev-*.whl"), folder=tmp_path)
    folder.mkdir()
    files = dict(written_files())
    assert {*files} == {"hostdev_new.py", "test_new.py", "pyproject.toml"}
    for name, text in files.items():
        (folder / name).write_text(text)
    assert sum(lines_of_code(t) for name, t in files.items() if name.endswith(".py")) <= 30
    pip(programs, "install", folder, folder=tmp_path)

    check_paths(programs, folder)
    check_command(programs, folder)
    if chosen == MOST:
        run(programs / "python", "-m", "mypy", "--strict", ".", folder=folder)
    options = ("-x", "-q", "-W", "error", "-p", "no:cacheprovider")
    printed = run(programs / "python", "-m", "pytest", *options, "-k", chosen, folder=folder)
    skipped = r"\d+ skipped, " if chosen == MOST else ""
    assert re.search(rf"^\d+ passed, {skipped}\d+ deselected", printed, re.M), printed


def check_paths(programs: Path, folder: Path) -> None:
    """Everything is imported from the environment, nothing from this checkout."""
    program = (
        "import sys, hostdev_core, hostdev_qemu, hostdev_core.testing.pytest_plugin as plugin\n"
        "import hostdev_new\n"
        "print(*(m.__file__ for m in (hostdev_core, hostdev_qemu, plugin, hostdev_new)), *sys.path)"
    )
    printed = run(programs / "python", "-c", program, folder=folder).split()
    assert all(file.startswith(f"{programs.parent}/lib/") for file in printed[:4]), printed
    assert not [path for path in printed if path.startswith(f"{ROOT}/") or path == str(ROOT)]


def check_command(programs: Path, folder: Path) -> None:
    """`hostdev -c new:///system` plans, lends and takes back."""
    place = folder.with_name("host")
    make = f"from hostdev_core.testing import make_sample; make_sample({str(place)!r})"
    run(programs / "python", "-c", make, folder=folder)
    host = SimulatedHost.open(place)
    before = host.snapshot()
    hostdev = (programs / "hostdev", "-c", "new:///system", "--host", place)
    assert "new" in run(programs / "hostdev", "plugins", folder=folder)
    # Files beside the code: the guide, and the scripts of shells.
    assert '.SH "EXIT CODES"' in run(programs / "hostdev", "man", folder=folder)
    for shell in ("bash", "zsh", "fish"):
        assert "--line" in run(programs / "hostdev", "completion", shell, folder=folder)
    assert "vfio-pci" in run(*hostdev, "plan", "vm1", NIC, folder=folder)
    assert host.snapshot() == before
    assert f"--pci {NIC}" in run(*hostdev, "prepare", "vm1", NIC, "1-3", folder=folder)
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    owners = {record.owner.driver for record in host.ledger.records() if record.owner}
    assert owners == {"new"}
    run(*hostdev, "reattach", "vm1", folder=folder)
    assert host.snapshot() == before
    assert host.ledger.records() == []
