"""The command line: one parser, with every command, its words, its options and their help."""

import argparse
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hostdev_core.cli.arguments import Parser, Version
from hostdev_core.cli.looking_options import add_list, add_show, add_topology
from hostdev_core.cli.option_values import seconds, uuid
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import fold, help_width

if TYPE_CHECKING:
    from hostdev_core.cli.arguments import Commands

NAMES = "0000:01:00.0 or 01:00.0 (PCI), 1-1.5 (USB port), 001:020 (USB bus:device), 18d1:4e22 (ids)"
EPILOG = (
    f"A DEVICE is named {NAMES}.",
    "Without -c, HOSTDEV_DEFAULT_URI is used, then what the installed drivers offer for this host.",
    "Without --state-dir, HOSTDEV_STATE_DIR is used, then /run/hostdev.",
    "Without --host, HOSTDEV_SIMULATED_HOST is used, for test suites, then this machine.",
    "",
    (
        "Exit codes: 0 done; 1 refused or failed, nothing was changed (but what a reattach says it gave"
        " back); 2 usage; 3 something is stuck (see `hostdev status`); 4 done, but the answer could not be"
        " printed; 5 `status`: a record does not tell the truth any more (gone, replaced, rebound); 6"
        " `doctor`: a problem; 128+n stopped by signal n, after the undo (a second signal leaves that to a"
        " worker, and says so)."
    ),
    "",
    "--json prints one document; its keys are stable, and docs/cli.md tells what is in them:",
)
SHELLS = ("bash", "zsh", "fish")
JSON_KEYS = {
    "list": ("devices", "absent", "ledger_error"),
    "show": ("devices", "absent", "ledger_error"),
    "status": ("records", "drift", "stuck", "unrecorded"),
    "explain": ("uri", "devices"),
    "explain --error": ("errors", "unknown", "lines"),
    "topology": ("tree", "borrowers", "ledger_error"),
    "plan": ("owner", "devices", "present", "upgrades", "missing", "warnings"),
    "prepare": ("assignments", "arguments"),
    "reattach": (
        *("returned", "gone", "replaced", "freed", "waiting", "failed", "not_held"),
        *("named_others", "held_elsewhere", "held_by_similar"),
    ),
    "recover": ("returned", "gone", "freed", "stuck"),
    "device detach": ("address", "done", "outcome"),
    "device reattach": ("address", "done", "outcome", "freed"),
    "device reset": ("address", "done", "outcome"),
    "device forget": ("record", "present", "forgotten"),
    "doctor": ("findings", "problems"),
    "plugins": ("plugins", "errors"),
    "capture": ("file",),
    "replay": ("host",),
    "help": ("help",),
    "completion": ("shell", "script"),
    "man": ("page",),
}
"""The keys of each command's document; `unrecorded` is there where there is any, and `capture` without a
file prints what would be in it.
"""


def parse(words: Sequence[str]) -> Options:
    """Parse a command line; UsageError for one that is not understood, SystemExit for help and version."""
    options, parser = Options(), make_parser(words)
    # Not parse_args(): the error for unknown words is to suggest options of the subcommand.
    _, unknown = parser.parse_known_args(words, namespace=options)
    parser = parser.below(options.words.split())
    if unknown:
        parser.refuse(unknown)
    for name, value in vars(options).items():
        empty: list[object] = []  # argparse's value for an option or argument that is given as "--"
        if isinstance(value, list) and (empty in value or (value == empty and name != "devices")):
            parser.error(f"{name}: '--' is no value")
    return options


def make_parser(words: Collection[str] | None = None) -> Parser:
    """Make the parser of the whole command; of the command lines that these words can be, if they are given.

    Of a command whose name is not among them it has the name and the help alone: making all options of all
    commands takes longer than parsing.
    """
    parser = Parser(
        prog="hostdev",
        description="Lend this host's PCI and USB devices to virtual machines, and take them back.",
        epilog=_epilog(),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=help_width()),
        allow_abbrev=False,  # an abbreviation in a script could mean a later option as well
        # An option may stand before or after the subcommand, whose default must not replace the value.
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and leave")
    _add_common(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (text, add_own) in COMMANDS.items():
        command = _make_command(commands, name, text)
        if words is None or name in words:
            _add_common(command)
            add_own(command)
    return parser


def _epilog() -> str:
    """The end of the help, folded to the terminal."""
    width = help_width() + 1
    lines = [part for line in EPILOG for part in fold(line, width, indent="")]
    for name, keys in JSON_KEYS.items():
        lines += fold(", ".join(keys), width, f"  {name:<16} ", " " * 19)
    return "\n".join(lines)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-c", "--connect", dest="uri", metavar="URI", help="the connection, like qemu:///system")
    add(
        "--host",
        metavar="DIR|FILE",
        help="work on the simulated machine in DIR, or on one as FILE of `capture` describes it, which"
        " is gone after this command",
    )
    add(
        "--state-dir",
        metavar="DIR",
        help="where the ledger is, in a container that has the host's at another place than /run/hostdev",
    )
    add("--timeout", type=seconds, metavar="S", help="seconds that the kernel may take for a write")
    add("-v", "--verbose", action="count", help="tell each step (-vv: each write)")
    add("--json", action="store_true", help="print JSON")


def _make_command(commands: "Commands", name: str, help: str) -> Parser:
    parser = commands.add_parser(
        name,
        help=help,
        description=help,
        formatter_class=partial(argparse.HelpFormatter, width=help_width()),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    words = parser.prog.partition(" ")[2]
    if words in JSON_KEYS:
        parser.epilog = f"--json prints a document with: {', '.join(JSON_KEYS[words])}."
    return parser


def _add_nothing(parser: Parser) -> None:
    """It has the common options alone."""


def _add_capture(parser: Parser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", help="a new file; standard output without it, or for -")
    add("--serials", action="store_true", help="with serial numbers, and MACs in names")


def _add_replay(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("directory", metavar="DIR", help="a directory that is empty or not there")


def _add_help(parser: Parser) -> None:
    parser.add_argument("topic", metavar="COMMAND", nargs="*", default=())


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))


def _add_man(parser: Parser) -> None:
    _add_help(parser)
    parser.add_argument(
        "--write", metavar="DIR", help="write every page into this directory, as for man(1)"
    )


def _add_request(parser: Parser) -> None:
    add = parser.add_argument
    add("domain", metavar="DOMAIN")
    add("devices", metavar="DEVICE", nargs="+")
    _add_wishes(parser)
    add("--same-owner", action="store_true", help="what the domain has already is no error")
    add("--hotplug", action="store_true", help="into a running domain (no cold boot)")
    add("--uuid", type=uuid, help="the domain's UUID")


def _add_wishes(parser: Parser) -> None:
    """How devices are to be lent."""
    add = parser.add_argument
    add("--unmanaged", action="store_true", help="only devices that were detached before")
    add("--stub", metavar="NAME", help="the kernel's stub driver to use")
    add("--whole-group", action="store_true", help="take the rest of an IOMMU group, too")
    add("--require-reset", action="store_true", help="refuse a device that cannot be reset")
    _add_allow(parser)


def _add_explain(parser: Parser) -> None:
    add = parser.add_argument
    add("devices", metavar="DEVICE", nargs="*", default=[])
    _add_wishes(parser)
    add(
        "--error",
        metavar="TEXT|-",
        help="a message of a hypervisor or of the kernel, or a log on standard input",
    )
    parser.epilog = f"{parser.epilog} And with --error: {', '.join(JSON_KEYS['explain --error'])}."


def _add_allow(parser: Parser) -> None:
    parser.add_argument(
        "--allow", metavar="RULE", action="append", help="pass the refusal of this rule"
    )


def _add_reattach(parser: Parser) -> None:
    parser.add_argument("domain", metavar="DOMAIN")
    # Without a default argparse calls them required, too, when the domain is missing.
    parser.add_argument("devices", metavar="DEVICE", nargs="*", default=[], help="only these")
    parser.add_argument("--uuid", type=uuid, help="the domain's UUID")


def _add_device(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    helps = {
        "detach": "put a device onto its stub driver, for nobody yet",
        "reattach": "give a detached device back as it was found",
        "reset": "reset a detached device",
        "forget": "delete a device's record and leave the device as it is",
    }
    for name, text in helps.items():
        action = _make_command(actions, name, text)
        _add_common(action)
        action.add_argument("device", metavar="DEVICE")
        if name in {"detach", "reset"}:
            _add_allow(action)
        if name == "reattach":
            action.add_argument(
                "--to-host",
                action="store_true",
                help="one on a stub driver that no record knows: to the host's own driver",
            )
        if name == "forget":
            action.add_argument("--as-is", action="store_true", help="accept it as it is now")


def _add_watch(parser: Parser) -> None:
    parser.add_argument("--state", action="store_true", help="first tell where things stand")
    parser.epilog = "--json prints a line for each event; docs/watching.md tells what is in it."


def _add_metrics(parser: Parser) -> None:
    parser.add_argument("--textfile", metavar="FILE", help="write into this file, in one step")


COMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "list": ("all devices, and whose they are", add_list),
    "show": ("everything about devices", add_show),
    "explain": (
        "why devices can be lent, or cannot; what a message about them means",
        _add_explain,
    ),
    "topology": ("what hangs on what, and who has it, as a tree or a picture", add_topology),
    "plan": ("what prepare would do, step by step; changes nothing", _add_request),
    "status": (
        "what is lent, detached or stuck; exit code 3 if stuck, 5 if drifted",
        _add_nothing,
    ),
    "watch": ("what happens to devices, from now on", _add_watch),
    "metrics": ("figures for Prometheus", _add_metrics),
    "doctor": ("what keeps devices from being lent; exits with 6 for a problem", _add_nothing),
    "plugins": ("the installed drivers and plugins", _add_nothing),
    "demo": ("a tour on a simulated machine", _add_nothing),
    "capture": ("describe this machine in a file, for a bug report", _add_capture),
    "replay": ("make a simulated machine of such a file", _add_replay),
    "prepare": ("lend devices to a domain, all or none", _add_request),
    "reattach": ("give a domain's devices back", _add_reattach),
    "recover": ("finish or undo what killed commands left", _add_nothing),
    "device": ("detach, reattach, reset or forget one device", _add_device),
    "help": ("the help of a command", _add_help),
    "completion": ("print what completes command lines in a shell", _add_completion),
    "man": ("the manual page of hostdev, or of a command", _add_man),
}
"""Each command's help, and what adds its own options and words."""
