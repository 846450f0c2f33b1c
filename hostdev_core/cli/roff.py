"""Write Markdown, as the guide has it, as the source of a manual page (groff_man(7))."""

import re
from collections.abc import Iterator

_INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\[(?P<link>[^]]+)\]\([^)]*\)")
_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
_CELL = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"(?:-|\d+\.) +(.*)")


def text(words: str) -> str:
    """A text that roff leaves as it is."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(words: str) -> str:
    """A text in bold, as what is typed is shown."""
    return f"\\fB{text(words)}\\fP"


def section(title: str) -> str:
    """The heading of a section."""
    return f'.SH "{text(title.replace("`", "").upper())}"'


def entry(term: str, *meaning: str) -> Iterator[str]:
    """A term, which is roff already, with what it means, in Markdown."""
    yield from (".TP", term, "; ".join(inline(each) for each in meaning if each) or "\\&")


def inline(words: str) -> str:
    """A line of Markdown: code and emphasis in bold, a link by its words alone."""
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(words):
        parts.append(text(words[end : found.start()]))
        kept = found["code"] or found["bold"]
        parts.append(bold(kept) if kept else inline(found["link"]))
        end = found.end()
    return "".join([*parts, text(words[end:])])


def body(markdown: str) -> Iterator[str]:
    """The lines of a page for a text of headings, paragraphs, tables, lists and blocks of code."""
    for block in _blocks(markdown):
        if block[0].startswith("```"):
            yield from (".PP", ".EX", *(text(line) for line in block[1:]), ".EE")
        elif block[0].startswith("#"):
            title = block[0].lstrip("# ")
            yield f'.SS "{text(title)}"' if block[0].startswith("###") else section(title)
        elif block[0].startswith("|"):
            for row in block[1:]:
                cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(row)[1:-1]]
                yield from () if _RULE.fullmatch(row) else entry(inline(cells[0]), *cells[1:])
        elif all(map(_ITEM.match, block)):
            for line in block:
                yield from (".IP \\(bu 2", inline(_ITEM.sub(r"\1", line)))
        else:
            yield from (".PP", inline(" ".join(block)))


def _blocks(markdown: str) -> Iterator[list[str]]:
    """The parts between empty lines; a block of code is one, without the line that ends it."""
    block: list[str] = []
    for line in [*markdown.splitlines(), ""]:
        is_code = block[:1] == ["```"]
        if is_code and line.startswith("```"):
            yield block
            block = []
        elif line.startswith("```"):
            block = ["```"]
        elif line or is_code:
            block.append(line)
        elif block:
            yield block
            block = []
