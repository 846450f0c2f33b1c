"""What stands in README.md and docs/*.md, block by block, and what becomes of each kind of block.

`python` is run: all blocks of a page are one script, in an empty folder, and it prints exactly what
its comments say (`print(x)  # this`). A block after a paragraph "`NAME`:" is a file of that name
instead, there before the script runs; pytest runs it when the name begins with `test_`.
`console` is run: each line after `$ ` (and its continuations after `> `) is given to one bash for the
whole page, in the same folder, and prints what follows it; `...` stands for anything, times may
differ, and a command fails when the first that it prints is `hostdev: ...`, and then only. After
`$ hostdev demo` all of the block is what it prints.
`sh` is for a real machine, so it is only read: each command must be one that `shell.py` knows, with
words that exist. Inline code that begins with `hostdev ` is read in the same way.
`toml`, `json` and `xml` are parsed. `text` is for people.
Anything else, code by indentation too, is an error; but for `{eval-rst}`, which `make docs` runs.
"""

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# These are only read here: the plugins' own tests run their Python.
PLUGIN_PAGES = sorted(ROOT.glob("plugins/*/README.md"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FILE = re.compile(r"`([\w.]+)`:")
PRINTS = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code; `language` "" was given none, None is code by indentation.

    `file` is its name where it is a file.
    """

    language: str | None
    text: str
    file: str | None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, or those of these languages."""
    found: list[Block] = []
    before = ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in {"fence", "code_block"}:
            language = token.info.strip() if token.type == "fence" else None
            match = FILE.fullmatch(before)
            found.append(Block(language, token.content, match[1] if match else None))
        if token.type in {"inline", "fence", "code_block"}:
            before = token.content
    return [block for block in found if not languages or block.language in languages]


def inline(page: Path) -> list[str]:
    """The code inside the sentences and tables of a page."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    inner = [child for token in tokens for child in token.children or ()]
    return [token.content for token in inner if token.type == "code_inline"]


def files(page: Path) -> dict[str, str]:
    """The files that a page has, by name."""
    return {block.file: block.text for block in blocks(page) if block.file}


def script(page: Path) -> str:
    """The Python of a page that is no file, as one script."""
    return "\n".join(block.text for block in blocks(page, "python") if not block.file)
