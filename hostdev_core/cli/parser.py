"""The command line: one argparse parser, its help, and its errors on one line."""

import argparse
import math
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

from hostdev_core.cli.looking_options import add_list, add_show, add_topology
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import help_width, print_error
from hostdev_core.model.address import quoted
from hostdev_core.model.device import is_uuid

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]  # pyright: ignore[reportPrivateUsage]

NAMES = "0000:01:00.0 or 01:00.0 (PCI), 1-1.5 (USB port), 001:020 (USB bus:device), 18d1:4e22 (ids)"
EPILOG = f"""\
A DEVICE is named {NAMES}.
Without -c, HOSTDEV_DEFAULT_URI is used, then what the installed drivers offer for this host.
Without --state-dir, HOSTDEV_STATE_DIR is used, then /run/hostdev.
Without --host, HOSTDEV_SIMULATED_HOST is used, for test suites, then this machine.

Exit codes: 0 done; 1 refused or failed, nothing was changed (but what
a reattach says it gave back); 2 usage; 3 something is stuck (see
`hostdev status`); 4 done, but the answer could not be printed; 5 `status`: a record does not tell the
truth any more (gone, replaced, rebound); 128+n stopped by signal n, after the undo (a
second signal leaves that to a worker, and says so).

--json prints one document; its keys are stable, and docs/cli.md tells what is in them:
"""
JSON_KEYS = {
    "list": ("devices", "absent", "ledger_error"),
    "show": ("devices", "absent", "ledger_error"),
    "status": ("records", "drift", "stuck", "unrecorded"),
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
    "plugins": ("plugins", "errors"),
    "capture": ("file",),
    "replay": ("host",),
}
"""The keys of each command's document; `unrecorded` is there where there is any, and `capture` without a
file prints what would be in it.
"""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, which suggest a near name for one that is misspelt."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see `{self.prog} --help`")
        sys.exit(2)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Exit with an error about words that the parser does not know."""
        from difflib import get_close_matches

        near = ""
        for word in words:
            if found := get_close_matches(
                word.partition("=")[0], self._option_string_actions, 1, 0.7
            ):
                near = f"; did you mean {found[0]}?"
        told = ", ".join(map(quoted, words))
        self.error(f"{told} {'is' if len(words) == 1 else 'are'} not known here{near}")

    def below(self, names: Sequence[str]) -> "Parser":
        """Find the parser of a command, and of its action, by their names."""
        for action in self._actions:
            if names and isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
                return cast("Commands", action).choices[names[0]].below(names[1:])
        return self

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            from difflib import get_close_matches

            known = [*map(str, action.choices)]
            found = get_close_matches(str(value), known, n=1, cutoff=0.5)
            near = f"did you mean {found[0]}? " if found else ""
            raise argparse.ArgumentError(
                None, f"{quoted(value)} is no {action.metavar}; {near}there are: {', '.join(known)}"
            )

    def print_help(self, file: object = None) -> None:
        """Print the help like any other output: a closed pipe is no error."""
        from hostdev_core.cli.output import emit

        emit(self.format_help().rstrip())


class Version(argparse.Action):
    """`--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> NoReturn:
        from hostdev_core import __version__
        from hostdev_core.cli.output import emit

        emit(f"hostdev {__version__}")
        parser.exit()


def parse(words: Sequence[str]) -> Options:
    """Parse a command line; SystemExit for help, version and errors."""
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
        epilog=EPILOG + "\n".join(f"  {name:<16} {', '.join(k)}" for name, k in JSON_KEYS.items()),
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
    add(
        "--timeout", type=_seconds, metavar="S", help="seconds that the kernel may take for a write"
    )
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


def _add_request(parser: Parser) -> None:
    add = parser.add_argument
    add("domain", metavar="DOMAIN")
    add("devices", metavar="DEVICE", nargs="+")
    add("--unmanaged", action="store_true", help="only devices that were detached before")
    add("--stub", metavar="NAME", help="the kernel's stub driver to use")
    add("--whole-group", action="store_true", help="take the rest of an IOMMU group, too")
    add("--same-owner", action="store_true", help="what the domain has already is no error")
    add("--require-reset", action="store_true", help="refuse a device that cannot be reset")
    add("--hotplug", action="store_true", help="into a running domain (no cold boot)")
    _add_allow(parser)
    add("--uuid", type=_uuid, help="the domain's UUID")


def _add_allow(parser: Parser) -> None:
    parser.add_argument(
        "--allow", metavar="RULE", action="append", help="pass the refusal of this rule"
    )


def _add_reattach(parser: Parser) -> None:
    parser.add_argument("domain", metavar="DOMAIN")
    # Without a default argparse calls them required, too, when the domain is missing.
    parser.add_argument("devices", metavar="DEVICE", nargs="*", default=[], help="only these")
    parser.add_argument("--uuid", type=_uuid, help="the domain's UUID")


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


COMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "list": ("all devices, and whose they are", add_list),
    "show": ("everything about devices", add_show),
    "topology": ("what hangs on what, and who has it, as a tree or a picture", add_topology),
    "plan": ("what prepare would do, step by step; changes nothing", _add_request),
    "status": (
        "what is lent, detached or stuck; exit code 3 if stuck, 5 if drifted",
        _add_nothing,
    ),
    "plugins": ("the installed drivers and plugins", _add_nothing),
    "demo": ("a tour on a simulated machine", _add_nothing),
    "capture": ("describe this machine in a file, for a bug report", _add_capture),
    "replay": ("make a simulated machine of such a file", _add_replay),
    "prepare": ("lend devices to a domain, all or none", _add_request),
    "reattach": ("give a domain's devices back", _add_reattach),
    "recover": ("finish or undo what killed commands left", _add_nothing),
    "device": ("detach, reattach, reset or forget one device", _add_device),
}
"""Each command's help, and what adds its own options and words."""


def _uuid(text: str) -> str:
    if not is_uuid(text):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no UUID; wanted 32 hex digits, like 5ca1ab1e-0000-4000-8000-000000000001"
        )
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:  # False for nan, too
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number of seconds above 0")
    return seconds
