"""How Sphinx makes the pages; `make docs` calls it with the repository as its source folder.

So the files are pages as they stand: README.md, CONTRIBUTING.md and the others are not copied, and
a relative link works on a code host as it does here.
"""

import sys
from pathlib import Path

import hostdev_core

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "_ext"))

project = "hostdev"
release = hostdev_core.__version__
copyright = "the authors of hostdev"

extensions = ["myst_parser", "sphinx.ext.autodoc", "repository_pages"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "plugins/*/README.md",
    "tests/kernel/README.md",
]
exclude_patterns = [".*", "build", "dist"]
page_tree = {
    "Start": ["quickstart", "concepts"],
    "Use": [
        "cli",
        "cli-reference",
        "in-the-way",
        "troubleshooting",
        "watching",
        "migration",
        "doctor",
        "rules",
        "known-errors",
        "sr-iov",
        "unprivileged-qemu",
        "reliability",
        "performance",
        "tested-on",
        "/SECURITY",
    ],
    "Extend": ["backends", "listeners", "testing", "hooks", "api"],
    "Project": [
        "README </README>",
        "architecture",
        "/CONTRIBUTING",
        "/tests/kernel/README",
        "/CHANGELOG",
    ],
    "Plugins": sorted(
        f"/plugins/{page.parent.name}/README" for page in ROOT.glob("plugins/*/README.md")
    ),
}
myst_heading_anchors = 3  # page.md#a-heading, as on a code host

html_theme = "furo"
html_title = "hostdev"
templates_path = ["_templates"]
html_additional_pages = {"index": "index.html"}  # leads to docs/index.html
html_copy_source = False
html_show_sphinx = False
suppress_warnings = ["misc.highlighting_failure"]  # what a command prints is no shell

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
default_role = "code"  # a docstring has `name`, as Markdown has it
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore_regex = [
    # Of Python and of other packages: their pages are on the network, and the build is not.
    ("py:.*", r"(abc|collections|contextlib|enum|os|pathlib|types|typing|pluggy|attrs?)\..*"),
    # Not public: a public object hands it on, and the signature says what it is called.
    (
        "py:class",
        r"(.*\.)?(Buses|DevicePlan|Hooks|Identity|KernelLog|Ledger|Modules|Origin|Udev|USBSelector|USBTexts|Xenstore)",
    ),
    ("py:class", r"hostdev_core\.kernel\.processes\.Search"),
]
