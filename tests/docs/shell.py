"""Reads commands that are meant for a real machine, without running them."""

import io
import itertools
import re
import shlex
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

import hostdev_core
from hostdev_core.cli.arguments import UsageError
from hostdev_core.cli.parser import make_parser
from tests.docs.pages import ROOT

CORE = Path(hostdev_core.__file__).parent
SETTING = re.compile(r"([A-Z_]+)=\S*")


def check_command(line: str) -> None:
    """Raise ValueError when a line of shell does not say what this project understands."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    for is_operator, group in itertools.groupby(lexer, key=lambda word: not word.strip("|;&")):
        if not is_operator:
            words = [*itertools.dropwhile(_is_setting, group)]
            if words:
                _check_words(words)


def _is_setting(word: str) -> bool:
    match = SETTING.fullmatch(word)
    if match and match[1].startswith("HOSTDEV_") and match[1] not in known_variables():
        raise ValueError(f"{match[1]}: nobody reads that variable")
    return match is not None


def _check_words(words: list[str]) -> None:
    program, *rest = itertools.takewhile(lambda word: word != ">", words)
    program = program.removeprefix("/opt/hostdev/bin/")
    if program == "hostdev":
        check_hostdev(rest)
    elif program == "make":
        _check_make(rest)
    elif program == "pip":
        _check_pip(rest)
    elif program == "pytest":
        _check_pytest(rest)
    elif program == "python" and rest[0] == "-c":
        compile(rest[1], "<sh>", "exec")
    elif program == "sudo":
        check_command(shlex.join(rest))
    elif program not in {"head", "mypy", "ln", ".", "source"} and words[:3] != [
        "python3",
        "-m",
        "venv",
    ]:
        raise ValueError(f"{program}: who knows this command?")


def check_hostdev(words: list[str]) -> None:
    """Read the words with the command's own parser."""
    if words and not any(word in words for word in ("--help", "--version")):
        only_options = words[-1].isupper() and words[-2:-1] and words[-2].startswith("-")
        try:
            make_parser().parse_args([*words, "list"] if only_options else words)
        except UsageError:
            raise ValueError(f"hostdev does not take: {shlex.join(words)}") from None


def is_command_name(text: str) -> bool:
    """Whether a text is "hostdev plan" or "hostdev device forget", a command without its words."""
    words = text.split()[1:]
    if not all(word.isalpha() for word in words):
        return False
    try:
        with redirect_stdout(io.StringIO()):
            make_parser().parse_args([*words, "--help"])
    except SystemExit as leave:
        return leave.code in {0, None} and len(words) < 3
    return False


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if not SETTING.match(word) and word not in targets:
            raise ValueError(f"make {word}: there is no such target")


def _check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    known = {"install", "-e", ".", ".[test]", "hostdev"}
    known |= {f"hostdev[{extra}]" for extra in extras}
    known |= {re.split("[^a-z-]", wanted)[0] for extra in extras.values() for wanted in extra}
    for word in words:
        folder = word.startswith("./") and (ROOT / word / "pyproject.toml").exists()
        if word not in known and not folder:
            raise ValueError(f"pip {word}: is there such a thing?")


def _check_pytest(words: list[str]) -> None:
    source = (CORE / "testing" / "pytest_plugin.py").read_text()
    for word in words:
        if word.startswith("--hostdev") and f'"{word.partition("=")[0]}"' not in source:
            raise ValueError(f"pytest {word}: there is no such option")


def known_variables() -> set[str]:
    """The variables of the environment that the code names."""
    sources = [*CORE.rglob("*.py"), *ROOT.glob("plugins/*/*/*.py")]
    return {name for path in sources for name in re.findall(r"\bHOSTDEV_[A-Z_]+", path.read_text())}
