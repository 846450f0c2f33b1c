"""Every block of README.md and docs/*.md does what it says; pages.py has the rules."""

import json
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.docs import conversation, pages, shell
from tests.helpers.cli_command import clean_environment

LANGUAGES = {"python", "console", "sh", "toml", "json", "xml", "text", "{eval-rst}"}
PARSE = {"toml": tomllib.loads, "json": json.loads, "xml": ET.fromstring}
# Of the contract, the parts that take a minute have tests of their own.
PYTEST = ("-q", "-p", "no:cacheprovider", "-k", "not at_every and not every_change and not in_full")

every_page = pytest.mark.parametrize(
    "page", pages.PAGES, ids=lambda page: str(page.relative_to(pages.ROOT))
)

each_plugin_too = pytest.mark.parametrize(
    "page",
    [*pages.PAGES, *pages.PLUGIN_PAGES],
    ids=lambda page: str(page.relative_to(pages.ROOT)),
)


@pytest.fixture
def folder(tmp_path: Path, page: Path) -> Path:
    """Where a page's blocks run, with its files in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in pages.files(page).items():
        (folder / name).write_text(text)
    return folder


def run_python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it with temporary files beside the folder, and no byte code left in it."""
    (folder.parent / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=clean_environment(
            PYTHONPATH=str(folder),
            TMPDIR=f"{folder.parent}/tmp",
            PYTHONDONTWRITEBYTECODE="1",
            HOSTDEV_DISABLE_PLUGINS="*",
        ),
        capture_output=True,
        text=True,
        timeout=200,
    )


@each_plugin_too
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    assert [block for block in pages.blocks(page) if block.language not in LANGUAGES] == []


@every_page
def test_python_prints_what_it_says(page: Path, folder: Path) -> None:
    code = pages.script(page)
    done = run_python(folder, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == pages.PRINTS.findall(code)
    assert {path.name for path in folder.iterdir()} == {*pages.files(page)}


# The whole contract of the one in backends.md is long; tests/testing/test_from_the_wheel.py runs some of it.
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page.name == "backends.md" else [])
        for page in pages.PAGES
    ],
    ids=lambda page: str(page.relative_to(pages.ROOT)),
)
def test_its_tests_pass(page: Path, folder: Path) -> None:
    tests = [name for name in pages.files(page) if name.startswith("test_")]
    if tests:
        done = run_python(folder, "-m", "pytest", *PYTEST, *tests)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {path.name for path in folder.iterdir()} == {*pages.files(page)}


@every_page
def test_a_shell_prints_what_it_says(page: Path, folder: Path, tmp_path: Path) -> None:
    turns = [t for block in pages.blocks(page, "console") for t in conversation.shown(block.text)]
    held = conversation.held([turn.command for turn in turns], folder, tmp_path / "script")
    for turn, (real, code) in zip(turns, held, strict=True):
        assert conversation.agree(turn.printed, real.printed), f"{turn}\n\nprinted:\n{real.printed}"
        assert (code != 0) == turn.may_fail, f"{turn.command}: exit code {code}\n{real.printed}"


@each_plugin_too
def test_commands_for_a_real_machine_exist(page: Path) -> None:
    for block in pages.blocks(page, "sh"):
        for line in block.text.splitlines():
            shell.check_command(line)
    for code in pages.inline(page):
        if code.startswith("hostdev ") and not shell.is_command_name(code):
            shell.check_command(code)


@each_plugin_too
def test_variables_exist(page: Path) -> None:
    named = {*re.findall(r"\bHOSTDEV_[A-Z_]+", page.read_text())}
    assert named - shell.known_variables() == set()


@each_plugin_too
def test_data_is_well_formed(page: Path) -> None:
    for block in pages.blocks(page, *PARSE):
        assert block.language is not None
        PARSE[block.language](block.text)


def test_every_kind_of_block_is_used() -> None:
    """A reader of pages that found nothing would find no mistake."""
    used = {block.language for page in pages.PAGES for block in pages.blocks(page)}
    assert used >= {"python", "console", "sh", "toml", "text"}
    assert any(pages.files(page) for page in pages.PAGES)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hostdev lend vm1 01:00.0", "hostdev does not take: lend"),
        ("hostdev plan vm1", "does not take"),
        ("hostdev prepare vm1 01:00.0 --all", "does not take"),
        ("sudo hostdev device detatch 01:00.0", "does not take"),
        ("make tests", "no such target"),
        ("pip install 'hostdev[tests]'", "is there such a thing"),
        ("pip install ./plugins/none", "is there such a thing"),
        ("pytest --hostdev-url=qemu:///system", "no such option"),
        ("HOSTDEV_URL=qemu:///system hostdev list", "nobody reads"),
        ("hostdev list | frobnicate", "who knows"),
    ],
)
def test_a_command_that_is_none_is_found(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        shell.check_command(line)


def test_a_conversation_that_differs_is_found() -> None:
    assert conversation.agree("a\n...\nd 2020-01-01 10:00:00", "a\n\nb\nc\nd 2026-11-22 16:25:56\n")
    assert conversation.agree("...", "")
    for page, real in (("a", "b\n"), ("", "a\n"), ("a\nb", "b\na\n"), ("a\n...", "b\na\n")):
        assert not conversation.agree(page, real)


def test_a_command_that_fails_unsaid_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    turns = conversation.shown("$ hostdev show 01:00.0 --host none\nhostdev: none\n$ false\n")
    held = conversation.held([turn.command for turn in turns], folder, tmp_path / "script")
    assert [code != 0 for _, code in held] == [True, True]
    assert [turn.may_fail for turn in turns] == [True, False]
