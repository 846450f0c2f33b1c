"""The options and words of the commands that look at devices."""

import argparse

FILTERS = {
    "--class": (
        "classes",
        "CLASS",
        "of it: net, nvme, storage, gpu, audio, usb, bridge, or the first digits of a code",
    ),
    "--driver": ("drivers", "NAME", "on this kernel driver; none: without one"),
    "--group": ("iommu_groups", "N", "in this IOMMU group; none: without one"),
    "--state": ("states", "STATE", "in this state, in a word of the table or of `state` in JSON"),
}
"""The options of `list` that may be repeated: where each is kept, what it wants, which devices it means."""


def add_list(parser: argparse.ArgumentParser) -> None:
    """Add those of `hostdev list`."""
    add = parser.add_argument
    add("find", metavar="WORD", nargs="*", help="only those that have this word in a name")
    add("--groups", action="store_true", help="by IOMMU group")
    add("--all-facts", action="store_true", help="look for their users, too, which takes longer")
    add("-q", "--quiet", action="store_true", help="addresses only, one a line, for scripts")
    for name, (dest, metavar, text) in FILTERS.items():
        add(name, dest=dest, metavar=metavar, action="append", help=f"only those {text}")
    add(
        "--lendable",
        metavar="URI",
        nargs="?",
        const="",
        help="only those that can be lent now: by this connection, or by -c's",
    )
    add("--sort", metavar="COLUMN", help="in the order of this column")
    add("--columns", metavar="COLUMN,...", help="these columns, in this order")


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add those of `hostdev topology`."""
    add = parser.add_argument
    add("--all-facts", action="store_true", help="look for their users, too, which takes longer")
    add("--svg", metavar="FILE", help="draw a picture into it; - for standard output")
    add("--html", metavar="FILE", help="make a page to search of it; - for standard output")


def add_show(parser: argparse.ArgumentParser) -> None:
    """Add those of `hostdev show`."""
    parser.add_argument(
        "devices",
        metavar="DEVICE",
        nargs="+",
        help="or the name of a network interface or disk, or a pattern for names, like '0000:03:00.*'",
    )
