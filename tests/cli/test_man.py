"""The manual pages: of the parser and the guide, and without a word that man(1) would complain of."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hostdev_core.cli import MODULES
from hostdev_core.cli.roff import body
from hostdev_core.simulated import SimulatedHost
from tests.docs.pages import ROOT
from tests.helpers.cli_command import run
from tests.helpers.terminal import on_a_terminal


def render(page: Path) -> str:
    """A page as man(1) shows it; it must say no warning of it."""
    assert shutil.which("man"), "man is not installed: apt-get install man-db"
    done = subprocess.run(
        ["man", "--warnings=w", "-l", page],
        env=os.environ | {"MANWIDTH": "300", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, str]:
    """Every page as man(1) shows it."""
    done = run("man", "--write", str(tmp_path / "man1"))
    files = [Path(line) for line in done.stdout.splitlines()]
    assert {*files} == {*(tmp_path / "man1").iterdir()}
    return {path.stem: render(path) for path in files}


def test_every_command_has_a_page_with_its_options(pages: dict[str, str]) -> None:
    assert {"hostdev", *(f"hostdev-{name}" for name in MODULES)} <= {*pages}
    assert {"hostdev-device-detach", "hostdev-device-forget"} <= {*pages}
    for option in re.findall(r"--[a-z][a-z-]*", run("prepare", "--help").stdout):
        assert option in pages["hostdev-prepare"] + pages["hostdev"]
    for name in MODULES:
        assert re.search(rf"^ +{name}\b", pages["hostdev"], re.MULTILINE)


def test_the_page_has_the_guide(pages: dict[str, str]) -> None:
    guide = (ROOT / "docs/cli.md").read_text()
    for title in re.findall("^## (.*)$", guide, re.MULTILINE):
        assert f"\n{title.replace('`', '').upper()}\n" in pages["hostdev"]
    shown = " ".join(pages["hostdev"].split())
    codes = guide.partition("\n## ")[2]  # the tables before are the parser's
    for cell in re.findall(r"^\| `?[\w-]+`? \| ([^|`]{30,}) \|$", codes, re.MULTILINE):
        assert cell in shown


def test_a_page_is_printed_as_its_source_and_shown_on_a_terminal(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANPAGER", "cat")
    source = run("man", "device", "reset")
    assert source.stdout.startswith('.TH "HOSTDEV-DEVICE-RESET" 1')
    assert json.loads(run("man", "device", "reset", "--json").stdout)["page"] == source.stdout
    code, shown = on_a_terminal("man", "device", "reset", host=host)
    assert code == 0
    assert ".TH" not in shown
    assert "reset a detached device" in re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown)


def test_no_man_no_pager(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, shown = on_a_terminal("man", host=host)
    assert (code, shown[:3]) == (0, ".TH")


def test_a_command_that_is_none_has_no_page(tmp_path: Path) -> None:
    assert "did you mean prepare?" in run("man", "prepar").stderr
    (tmp_path / "file").touch()
    assert run("man", "--write", str(tmp_path / "file")).returncode == 1


def test_what_roff_would_obey_is_text(tmp_path: Path) -> None:
    markdown = (
        "# A \\title's `-x`\n\n.so /etc/passwd `'\\n` -- **a** [ü](b)\n\n"
        "```text\n.ex -\n\n```\n- 'one\n"
    )
    page = tmp_path / "page.1"
    page.write_text("\n".join(['.TH "X" 1', *body(markdown)]) + "\n")
    shown = render(page)
    assert "A \\TITLE'S -X" in shown
    assert ".so /etc/passwd '\\n -- a ü" in shown
    assert ".ex -" in shown
    assert "'one" in shown
