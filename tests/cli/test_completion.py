"""What may stand at the end of a command line: what the parser takes, and what is alive on the host."""

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import Domain
from hostdev_core.cli import MODULES
from hostdev_core.cli.typed_line import split
from hostdev_core.model.rulebook import RULES
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.sample import DISK, NIC, QEMU, connect

pytestmark = pytest.mark.quick_cases
OPTIONS = {"--help", "-h", "-c", "--connect", "--state-dir", "--timeout", "-v", "--verbose",
           "--json"}  # fmt: skip
PASSABLE = {rule.name for rule in RULES.values() if rule.passable}


def offered(line: str, host: SimulatedHost, *, part: str = "", shell: str = "zsh") -> set[str]:
    """The words that are offered at the end of a line, for a shell that does its own quoting."""
    words = ("completion", "--line", shell, f"hostdev --host {shlex.quote(host.root)} {line}", part)
    done = run(*words, "of-plugin", "mine:///system")
    assert done.stderr == ""
    return {text.partition("\t")[0] or text for text in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", {*MODULES}),
        ("de", {"demo", "device"}),
        ("device ", {"detach", "reattach", "reset", "forget"}),
        ("device de", {"detach"}),
        ("nothing ", set[str]()),
        ("recover -", OPTIONS),
        ("list --class n", {"net", "nvme"}),
        ("list --state fo", {"foreign"}),
        ("list --sort dri", {"driver"}),
        ("list --g", {"--group", "--groups"}),
        ("list --groups --j", {"--json"}),
        ("list --json --j", set[str]()),
        ("show ", {NIC, DISK, "0000:00:14.0", "1-3"}),
        ("show 0000:02", {DISK}),
        ("show 02:", {"02:00.0"}),
        ("show 01:00.0 0000:02", {DISK}),
        ("prepare vm1 01:00.0 1", {"1-3"}),
        ("prepare vm1 -- 1", {"1-3"}),
        ("prepare vm1 1-3 --allow ", PASSABLE | {"of-plugin"}),
        ("prepare vm1 1-3 --allow=in", {"--allow=in-use"}),
        ("prepare vm1 1-3 --allow in-use --al", {"--allow"}),
        ("prepare --stub ", set[str]()),
        ("-c ", {"mine:///system"}),
        ("-c mine:///system li", {"list"}),
        ("--timeout 9 --json sta", {"status"}),
        ("capture ", {"\tfiles"}),
        ("replay here ", {"\tdirectories"}),
        ("--state-dir ", {"\tdirectories"}),
        ("completion ", {"bash", "zsh", "fish"}),
        ("help prep", {"prepare"}),
        ("reattach ", set[str]()),
    ],
)
def test_what_is_offered(host: SimulatedHost, line: str, words: set[str]) -> None:
    host.add_usb("1-3")
    assert offered(line, host) == words


def test_domains_and_uris_are_those_of_the_ledger(host: SimulatedHost) -> None:
    with connect(host, uri=QEMU) as conn:
        conn.prepare_hostdevs(Domain("it's $HOME", [NIC]))
        conn.prepare_hostdevs(Domain("-v", [DISK]))
    assert offered("reattach ", host) == {"it's $HOME"}
    assert offered("reattach -- ", host) == {"it's $HOME", "-v"}
    assert offered("reattach 'it'\"'", host) == {"it's $HOME"}
    assert offered("-c ", host) == {"mine:///system", QEMU}


def test_bash_gets_the_part_that_it_replaces(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("it's $HOME", [NIC]))
    assert offered("show 0000:02", host, part="02", shell="bash") == {"02:00.0"}
    assert offered("plan a 1 --allow=in", host, part="in", shell="bash") == {"in-use"}
    for typed, word in (
        ("it", r"it\'s\ \$HOME"),
        ("'it", r"it'\''s $HOME"),
        ('"it', r"it's \$HOME"),
    ):
        assert offered(f"reattach {typed}", host, part="it", shell="bash") == {word}


@pytest.mark.parametrize("place", ["/no/such/folder", "/dev/null", "''"])
def test_a_host_that_cannot_be_read_offers_nothing_and_says_nothing(place: str) -> None:
    line = f"hostdev --host {place} show "
    done = run("completion", "--line", "bash", line, "", "", "")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_damaged_ledger_offers_devices_all_the_same(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    Path(host.state_dir, "state.db").write_bytes(b"no database, but long enough" * 40)
    assert offered("show ", host) == {NIC, DISK}
    assert offered("reattach ", host) == set()


def test_a_machine_of_a_file_is_gone_after_the_tab(host: SimulatedHost, tmp_path: Path) -> None:
    machine, temporary = tmp_path / "machine.json", tmp_path / "tmp"
    temporary.mkdir()
    assert run("capture", str(machine), host=host).returncode == 0
    line = f"hostdev --host {machine} show 0000:02"
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = run("completion", "--line", "zsh", line, "", "", "", env=environment)
    assert done.stdout.startswith(f"{DISK}\t")
    assert [*temporary.iterdir()] == []


def test_nothing_is_written(host: SimulatedHost) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(host.root).rglob("*")}
    for line in ("show ", "reattach ", "prepare vm1 ", "-c "):
        offered(line, host)
    assert {path: path.stat().st_mtime_ns for path in Path(host.root).rglob("*")} == before


printable = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1
)


@given(st.lists(printable, min_size=1))
def test_quoted_words_are_read_as_a_shell_reads_them(words: list[str]) -> None:
    line = split(f"hostdev {shlex.join(words)}")
    assert (line.words, line.last, line.quote) == (words[:-1], words[-1], "")
    assert split(f"hostdev {shlex.join(words)} ") == (words, "", "")


@given(st.text(st.sampled_from("ab \t'\"\\$-")))
def test_any_text_is_split_as_a_shell_splits_it(text: str) -> None:
    """shlex keeps a backslash before "$" in quotes, which shells do not: that is left out."""
    line = split(f"hostdev {text}.")
    try:
        words = shlex.split(f"hostdev {text}.")
    except ValueError:  # a quote is open
        assert line.quote or f"{text}.".endswith("\\")
        return
    if r"\$" not in text:
        assert ([*line.words, line.last], line.quote) == (words[1:], "")
