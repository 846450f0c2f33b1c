"""What Sphinx does to the pages of this repository beyond what its configuration can say."""

import re

from command_line import reference
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

REFERENCE = "docs/cli-reference"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("page_tree", {}, "env", dict)
    app.connect("source-read", complete)
    app.connect("missing-reference", find_public)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the tree of pages, which a code host would show as a block of code, and the reference."""
    if docname == app.config.root_doc:
        for caption, pages in app.config.page_tree.items():
            entries = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"
    if docname == REFERENCE:
        source[0] += "\n" + reference()


def find_public(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.reference | None:
    """Lead `hostdev_core.connection.Connection` or `Connection` to the public name of it."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    name = node["reftarget"].rpartition(".")[2]
    for public in (f"hostdev_core.{name}", f"hostdev_core.testing.{name}"):
        if entry := objects.get(public):
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text)
    return None


def read_docstring(
    app: Sphinx, what: str, name: str, it: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text: what is indented in one is shown as it stands."""
    text = "\n".join(lines)
    if text.startswith("Alias for field number"):  # a NamedTuple's: says nothing
        text = ""
    lines[:] = re.sub(r"\n\n(?=    )", "\n\n::\n\n", text, count=1).split("\n")


def read_signature(
    app: Sphinx, what: str, name: str, it: object, options: object, signature: str, returns: str
) -> tuple[str | None, str | None]:
    """A default that is a member of an enumeration, as it is written in the code."""
    return signature and re.sub(r"<(\w+\.\w+): [^>]+>", r"\1", signature), returns
