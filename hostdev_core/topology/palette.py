"""Colours and marks of the pictures, for light and dark screens.

A manner of use has a mark of its own shape, and its word is always there, too: colour alone tells nothing.
Texts keep a contrast of 4.5 to 1 to what is behind them, marks 3 to 1 (WCAG 2.1, 1.4.3 and 1.4.11).
"""

from typing import NamedTuple


class Look(NamedTuple):
    """How a manner looks: the colours of text and mark, and of what is behind, light and dark; its mark.

    `mark` are SVG elements within 12 by 12, drawn with the class "line" or "full".
    """

    light: tuple[str, str]
    dark: tuple[str, str]
    mark: str


MANNERS = {
    "free": Look(
        ("#116329", "#dafbe1"),
        ("#7ee787", "#12291c"),
        '<circle class="line" cx="6" cy="6" r="4"/>',
    ),
    "host": Look(
        ("#424a53", "#eaeef2"),
        ("#b1bac4", "#252b33"),
        '<rect class="full" x="2" y="2" width="8" height="8" rx="1.5"/>',
    ),
    "lent": Look(
        ("#0550ae", "#ddf4ff"),
        ("#79c0ff", "#12263f"),
        '<path class="full" d="M2 1 11 6 2 11z"/>',
    ),
    "between": Look(
        ("#7a4a00", "#fff8c5"),
        ("#e3b341", "#2b2413"),
        '<path class="full" d="M2 1h8L6 6l4 5H2l4-5z"/>',
    ),
    "foreign": Look(
        ("#6639ba", "#fbefff"),
        ("#d2a8ff", "#271f3a"),
        '<path class="full" d="M6 0 12 6 6 12 0 6z"/>',
    ),
    "trouble": Look(
        ("#a40e26", "#ffebe9"),
        ("#ffa198", "#35191c"),
        '<path class="line" d="M2 2 10 10M10 2 2 10"/>',
    ),
    "unknown": Look(
        ("#57606a", "#f6f8fa"),
        ("#9ea7b3", "#1b2128"),
        '<circle class="line dashed" cx="6" cy="6" r="4"/>',
    ),
}
PLACE_MARK = '<circle class="full" cx="6" cy="6" r="2"/>'
# Of the page: what is behind everything, texts, lesser texts, lines, and what has the focus.
PAGE = {
    "light": {"back": "#ffffff", "text": "#1f2328", "less": "#59636e", "line": "#c8d1da", "focus": "#0860c4"},
    "dark": {"back": "#0d1117", "text": "#e6edf3", "less": "#9ea7b3", "line": "#3d444d", "focus": "#58a6ff"},
}  # fmt: skip
DARK = "@media (prefers-color-scheme: dark)"


def variables() -> str:
    """The colours as custom properties of CSS: --text, --lent, --lent-back and so on."""
    return (
        f":root {{ color-scheme: light dark; {_scheme('light')} }}\n"
        f"{DARK} {{ :root {{ {_scheme('dark')} }} }}"
    )


def _scheme(scheme: str) -> str:
    found = {**PAGE[scheme]}
    for name, look in MANNERS.items():
        front, back = look.light if scheme == "light" else look.dark
        found |= {name: front, f"{name}-back": back}
    return " ".join(f"--{name}: {colour};" for name, colour in found.items())


def marks() -> str:
    """The marks as symbols of SVG, m-lent and so on, for <use>."""
    every = {name: look.mark for name, look in MANNERS.items()} | {"place": PLACE_MARK}
    symbols = (
        f'<symbol id="m-{name}" viewBox="-1 -1 14 14">{mark}</symbol>'
        for name, mark in every.items()
    )
    return "".join(symbols)


MARK_STYLE = """\
.full { fill: currentColor; }
.line { fill: none; stroke: currentColor; stroke-width: 2; }
.dashed { stroke-dasharray: 2.5 2; }"""
