"""README.md: its code and its commands print what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
PRINTS = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_code_runs_and_prints_what_it_says(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == PRINTS.findall(code)


def test_the_demo_prints_what_it_says() -> None:
    command = [sys.executable, "-m", "hostdev_core.cli", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    (shown,) = re.findall(r"^```console\n\$ hostdev demo\n(.*?)^```$", README, re.M | re.S)
    printed = iter(TIME.sub("TIME", done.stdout).splitlines())
    wanted = [line for line in TIME.sub("TIME", shown).splitlines() if line not in {"", "..."}]
    assert [line for line in wanted if line not in printed] == []  # each one, in this order


def test_there_is_code() -> None:
    assert len(BLOCKS) == 2
    assert PRINTS.findall(BLOCKS[0])


def test_the_backend_is_the_one_of_the_examples() -> None:
    (backend,) = (block for block in BLOCKS if "class " in block)
    example = (ROOT / "examples" / "own_backend.py").read_text()
    body = backend[backend.index("class ") :]
    assert body in example
    assert len(backend.splitlines()) <= 30
