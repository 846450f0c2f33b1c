"""Draw a topology as a page that is one file: a tree to search, to fold and to walk by keys, with details.

A Content-Security-Policy lets the page's own style sheet and script run, known by their hashes, and nothing
else: no request leaves the page, and no text of a device is ever run. Without the script the tree is there
whole. Roles and keys are those of the tree pattern of the ARIA Authoring Practices Guide.
"""

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from hostdev_core.kernel.processes import printable
from hostdev_core.topology.labels import counts_of, details_of, label_of, manner_of
from hostdev_core.topology.palette import MANNERS, MARK_STYLE, marks, variables
from hostdev_core.topology.svg import SIGN, TITLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.topology.labels import Label
    from hostdev_core.topology.tree import Node, Topology

_SHOWN = ("what", "model", "names", "kernel_driver", "group", "state")
_LINKED = {"shares it with", "virtual function of"}


def draw(topology: "Topology") -> str:
    """Draw it; the same topology gives the same text."""
    style, script = _style(), _read("page.js")
    rules = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"{rules}; base-uri 'none'; form-action 'none'"
    filters = "\n".join([*_state_filters(topology), *_domain_filters(topology)])
    return f"""\
<!doctype html>
{SIGN}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE}</title>
<style>{style}</style>
</head>
<body>
<svg class="marks" aria-hidden="true">{marks()}</svg>
<header>
<h1>PCI and USB devices</h1>
<p>{escape(counts_of(topology))}</p>
<div class="tools" hidden>
<input id="search" type="search" autocomplete="off" spellcheck="false"
 placeholder="Search" aria-label="Search the devices" aria-keyshortcuts="/" aria-controls="tree">
<button type="button" id="fold">Fold all</button>
<span id="found" role="status"></span>
</div>
<div class="tools filters" role="group" aria-label="Only devices that are" hidden>
{filters}
</div>
</header>
<main>
<ul id="tree" role="tree" aria-label="PCI and USB devices">
{"".join(_items(topology.roots, topology))}</ul>
<aside id="details" aria-label="Details" hidden>
<button type="button" id="close" aria-label="Close the details">&times;</button>
<h2></h2>
<dl></dl>
</aside>
</main>
<script>{script}</script>
</body>
</html>
"""


def _read(name: str) -> str:
    return files("hostdev_core.topology").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _style() -> str:
    colours = "\n".join(
        f".{name} {{ color: var(--{name}); }} .pill.{name} {{ background: var(--{name}-back); }}"
        for name in MANNERS
    )
    return f"\n{variables()}\n{colours}\n{MARK_STYLE}\n{_read('page.css')}"


def _mark(manner: str) -> str:
    return f'<svg class="mark {manner}" aria-hidden="true"><use href="#m-{manner}"/></svg>'


def _state_filters(topology: "Topology") -> "Iterator[str]":
    for code, count in topology.counts.items():
        yield _filter("code", code, f"{count} {code}", manner_of(code))


def _domain_filters(topology: "Topology") -> "Iterator[str]":
    for name, addresses in topology.borrowers.items():
        yield _filter("domain", name, f"{name} has {len(addresses)}", "lent")


def _filter(kind: str, value: str, text: str, manner: str) -> str:
    return (
        f'<button type="button" aria-pressed="false" data-{kind}="{_clean(value)}">'
        f"{_mark(manner)}<span>{_clean(text)}</span></button>"
    )


def _clean(text: str) -> str:
    return escape(printable(text))


def _items(
    nodes: "Iterable[Node]", topology: "Topology", level: int = 1, prefix: str = "at"
) -> "Iterator[str]":
    """The items of nodes with all below them; each has its details beside it, which the script shows.

    The prefix tells a device that is not there any more from the one that is at its address now.
    """
    for node in nodes:
        label = label_of(node)
        place = escape(f"{prefix}-{'_'.join(label.address.split())}")
        expanded = ' aria-expanded="true"' if node.children else ""
        yield (
            f'<li role="treeitem" id="{place}" aria-labelledby="row-{place}" aria-level="{level}"{expanded}'
            f' aria-selected="false" tabindex="-1" data-code="{escape(label.code)}"'
            f' data-domain="{_owner(node)}">\n<div class="row" id="row-{place}">'
        )
        yield from _cells(label, has_children=bool(node.children))
        yield f"</div>\n<dl hidden=''>{''.join(_details(node, topology))}</dl>\n"
        if node.children:
            inner = "was" if node.kind == "absent" else prefix
            yield '<ul role="group">\n'
            yield from _items(node.children, topology, level + 1, inner)
            yield "</ul>\n"
        yield "</li>\n"


def _owner(node: "Node") -> str:
    owner = node.device and node.device.get("used_by")
    return _clean(f"{owner['domain']} ({owner['driver']})") if owner else ""


def _cells(label: "Label", *, has_children: bool) -> "Iterator[str]":
    yield f'<span class="twist{" on" if has_children else ""}" aria-hidden="true"></span>'
    yield f'{_mark(label.manner)}<b class="address">{escape(label.address)}</b>'
    for column in _SHOWN:
        text = getattr(label, column)
        if column == "state":
            style = f"pill {label.manner}" if text else ""
            yield f' <span class="state"><span class="{style}">{escape(text)}</span></span>'
        else:
            shown = f"group {text}" if column == "group" and text else text
            yield f' <span class="{column}">{escape(shown)}</span>'


def _details(node: "Node", topology: "Topology") -> "Iterator[str]":
    for name, value in details_of(node, topology):
        text = escape(value)
        shown = f'<a href="#at-{text}">{text}</a>' if name in _LINKED else text
        yield f"<dt>{name}</dt><dd>{shown}</dd>"
