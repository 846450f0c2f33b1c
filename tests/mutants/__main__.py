"""Take safety-critical conditions away, one at a time, and see that the tests notice.

    make mutants [ARGS="WORD... [--near]"]

Each mutant is made in a copy of the checkout, one copy for each processor (`taskset` gives fewer).
The tests that stand nearest are run first, but for the long ones, then, when they notice nothing, all
of `make test-all`. WORDs choose mutants by file or name; with `--near` only the nearest tests are run.
Before, they must pass with nothing taken away.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.mutants.mutant import MUTANTS, ROOT, Mutant

QUICK = ("-m", "not long")
LIMIT = 1800  # seconds; a mutant may well hang
COPIES = len(os.sched_getaffinity(0))


def main(arguments: list[str]) -> int:
    """Try the mutants; 1 when one survives."""
    words = [word for word in arguments if not word.startswith("-")]
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.file} {m.name}" for w in words)]
    trying = [mutant for mutant in chosen if not mutant.equivalent]
    for mutant in chosen:
        if mutant.equivalent:
            print(f"equivalent  {mutant.file}: {mutant.name} ({mutant.equivalent})")
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(COPIES):
            copies.put(copy_checkout(Path(folder) / str(number)))
        check_unchanged(Path(folder) / "0", sorted({test for m in trying for test in m.near}))

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


def check_unchanged(copy: Path, near: list[str]) -> None:
    """Stop unless the nearest tests pass with nothing taken away: a failure would say nothing."""
    began = time.monotonic()
    if near and (said := failure(copy, [*near, *QUICK])):
        raise SystemExit(f"the nearest tests fail with nothing taken away: {said}")
    print(f"unchanged   the nearest tests pass ({time.monotonic() - began:.0f} s)", flush=True)


def is_noticed(mutant: Mutant, copy: Path, *, only_near: bool) -> bool:
    """Whether a test fails with the mutation."""
    path = copy / mutant.path
    text, began = path.read_text(), time.monotonic()
    path.write_text(mutant.applied(text))
    try:
        where, said = "near", failure(copy, [*mutant.near, *QUICK])
        if not said and not only_near:
            where, said = "elsewhere", failure(copy, ["tests", "--ignore=tests/kernel", "-m", ""])
    finally:
        path.write_text(text)
    seconds = time.monotonic() - began
    result = f"{mutant.file}: {mutant.name} ({seconds:.0f} s)"
    print(f"{where if said else 'SURVIVED':11} {result} {said}".rstrip(), flush=True)
    return bool(said)


def failure(copy: Path, tests: list[str]) -> str:
    """What fails first over the copy's code, as pytest names it; empty when nothing does.

    SystemExit where pytest cannot run these tests, or nothing is left of them.
    """
    status, said = run_pytest(copy, tests)
    if status < 0:  # whoever killed it need not be the mutant
        status, said = run_pytest(copy, tests)
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"none of {tests} is run: `near` wants a test that is not long")
    if status > 1:
        raise SystemExit(f"pytest cannot run {tests}: {said[-2000:]}")
    failed = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    name = failed[0].split(" - ")[0].split(maxsplit=1)[1] if failed else "it hangs or dies"
    return name if status else ""


def run_pytest(copy: Path, tests: list[str]) -> tuple[int, str]:
    """Its exit status and what it said; what is left of its session is killed.

    What it started in a session of its own (setsid) is not: that goes on.
    """
    options = ["-x", "-q", "--timeout=120", "--tb=line"]
    for plugin in ("no:cacheprovider", "no:xdist", "tests.mutants.ending"):
        options += ["-p", plugin]
    paths = [copy, copy / "drivers", *(copy / "plugins").iterdir()]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOSTDEV_QUICK_CASES": "1000",  # all cases of a test that is near
    }
    command = [sys.executable, "-m", "pytest", *options, *tests]
    with tempfile.TemporaryFile() as said:  # no pipe: what is left behind would keep it open
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return status, said.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
