"""The files of pictures: whole or not at all, and over nothing that is not one."""

import json
import os
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run, run_as_nobody

pytestmark = pytest.mark.quick_cases


def test_both_pictures_are_written_at_once(host: SimulatedHost, tmp_path: Path) -> None:
    one, two = tmp_path / "one.svg", tmp_path / "two.html"
    done = run("topology", "--svg", str(one), "--html", str(two), host=host)
    assert (done.returncode, done.stderr) == (0, run("topology", host=host).stderr)
    told = "2 devices: 2 available"
    assert done.stdout.splitlines() == [f"{one}: {told}", f"{two}: {told}"]
    assert one.read_text().startswith("<svg ")
    assert two.read_text().startswith("<!doctype html>")
    assert sorted(os.listdir(tmp_path)) == ["host", "one.svg", "two.html"]


def test_a_dash_is_standard_output(host: SimulatedHost) -> None:
    done = run("topology", "--svg", "-", host=host)
    assert done.stdout.startswith("<svg ")
    assert done.stdout.endswith("</svg>\n")


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_an_older_picture_is_replaced(host: SimulatedHost, tmp_path: Path, option: str) -> None:
    file = tmp_path / "picture"
    assert run("topology", option, str(file), host=host).returncode == 0
    before = file.stat().st_ino
    host.unplug("0000:02:00.0")
    assert run("topology", option, str(file), host=host).returncode == 0
    assert file.stat().st_ino != before
    assert "0000:02:00.0" not in file.read_text()


def test_anything_else_is_left_alone(host: SimulatedHost, tmp_path: Path) -> None:
    mine, folder, pipe = tmp_path / "mine.svg", tmp_path / "folder", tmp_path / "pipe"
    link, nowhere = tmp_path / "link", tmp_path / "nowhere"
    mine.write_text("<svg/>")
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to("mine.svg")
    nowhere.symlink_to("new.svg")
    for place in (mine, folder, pipe, link, nowhere):
        done = run("topology", "--svg", str(place), host=host)
        assert done.returncode == 2
        assert done.stderr == (
            f"hostdev: {place} is there already, and is no picture of this command; remove it first,"
            " or name another file\n"
        )
    assert mine.read_text() == "<svg/>"
    assert not (tmp_path / "new.svg").exists()


def test_a_place_that_cannot_be_written_is_named(host: SimulatedHost, tmp_path: Path) -> None:
    place = tmp_path / "no" / "picture.svg"
    done = run("topology", "--svg", str(place), host=host)
    assert done.returncode == 2
    assert done.stderr.endswith(f"hostdev: {place} cannot be written: No such file or directory\n")


def test_a_file_that_may_not_be_read_is_left_alone(host: SimulatedHost, public: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    closed = public / "closed.svg"
    closed.write_text("mine")
    closed.chmod(0o600)
    done = run_as_nobody("topology", "--svg", str(closed))
    assert done.returncode == 2
    assert f"{closed} cannot be read: Permission denied; name another file" in done.stderr
    assert closed.read_text() == "mine"


def test_standard_output_takes_one(host: SimulatedHost) -> None:
    for words in (("--svg", "-", "--html", "-"), ("--svg", "-", "--json")):
        done = run("topology", *words, host=host)
        assert done.returncode == 2
        assert "standard output takes one" in done.stderr
        assert done.stdout.startswith('{\n  "error"') == ("--json" in words)


def test_two_pictures_are_two_files(host: SimulatedHost, tmp_path: Path) -> None:
    same = str(tmp_path / "same")
    done = run("topology", "--svg", same, "--html", same, host=host)
    assert done.returncode == 2
    assert "name two files" in done.stderr
    assert not os.path.exists(same)


def test_a_picture_goes_beside_the_document(host: SimulatedHost, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    done = run("topology", "--json", "--svg", str(file), host=host)
    assert [root["kind"] for root in json.loads(done.stdout)["tree"]] == ["root bus", "root bus"]
    assert file.exists()
