"""Runs of pytest, each in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path


def run_pytest(
    folder: Path,
    test: str,
    *options: str,
    code: int = 0,
    python: tuple[str, ...] = (),
    **environment: str,
) -> str:
    """Run a test module in a folder of its own; what pytest printed."""
    folder.mkdir(exist_ok=True)
    (folder / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, *python, "-m", "pytest", "-rA", "-W", "error",
         "-p", "no:cacheprovider", f"--basetemp={folder}-tmp", *options],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("HOSTDEV_", "PYTEST_"))}
        | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
