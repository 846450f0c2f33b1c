"""Make texts fit a terminal: cells and headings are cut, other texts are folded, so that no line wraps."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hostdev_core.cli.layout import Column

_MARK = "…"
_TAIL = 6  # columns that the end of a text needs behind its first word


def choose(
    columns: "Sequence[Column]", full: "Sequence[int]", room: int, gap: int
) -> tuple[list[int], list[int]]:
    """Choose the columns that are shown, by number, and their widths; in full they take these widths.

    `gap` are the spaces between two of them.
    """
    chosen = [*range(len(columns))]
    least = [min(full[at], max(c.least, len(c.title))) for at, c in enumerate(columns)]
    for at in reversed(range(len(columns))):
        if columns[at].optional and _total([least[each] for each in chosen], gap) > room:
            chosen.remove(at)
    widths = _shrink([full[at] for at in chosen], [least[at] for at in chosen], room, gap)
    return chosen, _shrink(widths, [1] * len(widths), room, gap)


def _total(widths: "Sequence[int]", gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _shrink(widths: "Sequence[int]", least: "Sequence[int]", room: int, gap: int) -> list[int]:
    """Take from the widest column again and again, until all fit or none can be made smaller."""
    found = [*widths]
    while _total(found, gap) > room:
        spare = [at for at in range(len(found)) if found[at] > least[at]]
        if not spare:
            break
        found[max(spare, key=found.__getitem__)] -= 1
    return found


def fit(cell: str, column: "Column", width: int) -> str:
    """Cut a cell to a width, or fill it up; words that say little go first from its end."""
    words = cell.split(" ")
    while len(words) > 1 and words[-1] in column.spare and width_of(" ".join(words)) > width:
        words.pop()
    shown = cut(" ".join(words), width, column.keep)
    return shown + " " * (width - width_of(shown))


def cut(text: str, width: int, keep: str = "start") -> str:
    """Cut a text to a width, and mark where something is missing; `keep` as in Column.

    Of "both" the first word stays, and as much of the end as has room.
    """
    if width_of(text) <= width:
        return text
    if keep == "start":
        return _head(text, width - 1) + _MARK
    first = text.partition(" ")[0] + " " if keep == "both" else ""
    if width_of(first) > width - _TAIL:
        first = ""
    return first + _MARK + _head(text[::-1], width - width_of(first) - 1)[::-1]


def _head(text: str, width: int) -> str:
    """As much of the beginning as has room."""
    if text.isascii():
        return text[: max(width, 0)]
    taken = ""
    for letter in text:
        if width_of(taken + letter) > width:
            break
        taken += letter
    return taken


def width_of(text: str) -> int:
    """The columns that a text takes on a terminal: East Asian letters take two, marks over letters none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fold(text: str, width: int, first: str = "", indent: str = "  ") -> list[str]:
    """Fold a text at its spaces into lines of a width: one that begins with `first`, then indented ones.

    What stands between backticks is to be pasted: it stays on one line where it fits.
    """
    if width_of(first + text) <= width:
        return [first + text]
    lines: list[str] = []
    line, begun = first, False
    for word in _words(text, max(width - max(len(first), len(indent)), 1)):
        if begun and width_of(f"{line} {word}") > width:
            lines.append(line)
            line, begun = indent, False
        line += f" {word}" if begun else word
        begun = True
    return [*lines, line]


def _words(text: str, width: int) -> "Iterable[str]":
    """Yield the words of a text; one that is wider than a line in pieces."""
    import re  # here: few tables need it

    for found in re.findall(r"[^\s`]*`[^`]*`\S*|\S+", text):
        yield from _pieces(found, width)


def _pieces(found: str, width: int) -> "Iterable[str]":
    """Yield a word, or as much of it as fits; what is quoted is taken apart at its spaces first."""
    for word in [found] if width_of(found) <= width else found.split():
        rest = word
        while width_of(rest) > width:
            head = _head(rest, width) or rest[0]
            yield head
            rest = rest[len(head) :]
        yield rest
