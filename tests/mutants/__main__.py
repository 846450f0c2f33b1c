"""Take safety-critical conditions away, one at a time, and see that the tests notice.

    make mutants [ARGS="WORD... [--near]"]

Each mutant is made in a copy of the checkout. The tests that stand nearest are run first, but for the
long ones, then, when they notice nothing, all of `make test-all`. WORDs choose mutants by file or name;
with `--near` only the nearest tests are run. Before, they must pass with nothing taken away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.mutant import MUTANTS, ROOT, Mutant

QUICK = ("-m", "not long")
LIMIT = 1800  # seconds; a mutant may well hang
COPIES = max(1, (os.cpu_count() or 1))


def main(arguments: list[str]) -> int:
    """Try the mutants; 1 when one survives."""
    words = [word for word in arguments if not word.startswith("-")]
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.file} {m.name}" for w in words)]
    trying = [mutant for mutant in chosen if not mutant.equivalent]
    for mutant in chosen:
        if mutant.equivalent:
            print(f"equivalent  {mutant.file}: {mutant.name} ({mutant.equivalent})")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(COPIES):
            copies.put(copy_checkout(Path(folder) / str(number)))
        near = sorted({test for mutant in trying for test in mutant.near})
        if near and fails(Path(folder) / "0", [*near, *QUICK]):
            raise SystemExit("the nearest tests fail with nothing taken away")

        def job(mutant: Mutant) -> bool:
            copy = copies.get()
            try:
                return is_noticed(mutant, copy, only_near="--near" in arguments)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(COPIES) as pool:
            noticed = [*pool.map(job, trying)]
    print(f"{sum(noticed)} of {len(trying)} mutants were noticed")
    return 0 if all(noticed) else 1


def copy_checkout(to: Path) -> Path:
    """All files that git knows, as they are in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def is_noticed(mutant: Mutant, copy: Path, *, only_near: bool) -> bool:
    """Whether a test fails with the mutation."""
    path = copy / mutant.path
    text, began = path.read_text(), time.monotonic()
    path.write_text(mutant.applied(text))
    try:
        where = "near" if fails(copy, [*mutant.near, *QUICK]) else ""
        if not where and not only_near:
            where = "elsewhere" if fails(copy, ["tests", "--ignore=tests/kernel", "-m", ""]) else ""
    finally:
        path.write_text(text)
    seconds = time.monotonic() - began
    print(f"{where or 'SURVIVED':11} {mutant.file}: {mutant.name} ({seconds:.0f} s)", flush=True)
    return bool(where)


def fails(copy: Path, tests: list[str]) -> bool:
    """Whether pytest ends with a failure, over the copy's code."""
    options = ["-x", "-q", "--timeout=120", "-p", "no:cacheprovider", "-p", "no:xdist"]
    paths = [copy, copy / "drivers", *(copy / "plugins").iterdir()]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in {0, 1}:
        raise SystemExit(f"pytest cannot run {tests}: {done.stdout.decode()[-2000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
