"""inotify(7) as it answers on this kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core.kernel.inotify import (
    CREATED,
    DELETED,
    DELETED_ITSELF,
    DIRECTORY_ONLY,
    ENDED,
    OPENED,
    OVERFLOW,
    Inotify,
    Notice,
)

OPEN_MANY = """
import resource
from hostdev_core.errors import StateError
from hostdev_core.kernel.inotify import Inotify
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    kept = [Inotify() for _ in range(20)]
except StateError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_names_of_every_length_are_told(folder: Path) -> None:
    inotify = Inotify()
    watch = inotify.add(str(folder), CREATED | DELETED)
    names = ["a", "b" * 15, "c" * 16, "d" * 255, os.fsdecode(b"\xff")]
    for name in names:
        (folder / name).touch()
    assert inotify.read() == [Notice(watch, CREATED, name) for name in names]
    assert inotify.read() == []
    inotify.close()
    inotify.close()


def test_a_watch_ends_with_its_directory(folder: Path) -> None:
    inotify = Inotify()
    watch = inotify.add(str(folder), DELETED_ITSELF)
    folder.rmdir()
    assert inotify.read() == [Notice(watch, DELETED_ITSELF, ""), Notice(watch, ENDED, "")]
    inotify.remove(watch)
    assert inotify.add(str(folder.parent), CREATED) != watch
    inotify.close()


def test_what_is_not_there_is_an_error_as_of_open(folder: Path) -> None:
    inotify = Inotify()
    with pytest.raises(FileNotFoundError):
        inotify.add(str(folder / "none"), CREATED)
    (folder / "file").touch()
    with pytest.raises(NotADirectoryError):
        inotify.add(str(folder / "file"), CREATED | DIRECTORY_ONLY)
    inotify.close()


def test_more_than_the_kernel_keeps(folder: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    inotify = Inotify()
    inotify.add(str(folder), OPENED)
    for name in ("a", "b"):
        (folder / name).touch()
    for number in range(limit + 2):  # equal notices one after the other are one
        os.close(os.open(folder / "ab"[number % 2], os.O_RDONLY))
    notices = inotify.read()
    assert notices[-1] == Notice(-1, OVERFLOW, "")
    assert inotify.read() == []
    inotify.close()


def test_a_limit_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_MANY], capture_output=True, text=True, check=False, timeout=60
    )
    assert "max_user_instances" in done.stdout
    assert "ulimit -n" in done.stdout
    assert done.stderr == ""
