"""The `hostdev` command.

A subcommand's module is imported when it is asked for, and so is all that costs time: `hostdev list`
loads neither argparse nor a plugin. A subcommand makes a call of the API and shows its answer: no rule stands
here, and nothing is written to the machine.
"""

import sys

# Not typing's, here and in the other modules of `hostdev list`: importing it costs time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostdev_core.cli.options import Options

MODULES = {
    "list": "list_devices",
    "show": "show",
    "explain": "explain",
    "plan": "plan",
    "prepare": "prepare",
    "reattach": "reattach",
    "status": "status",
    "topology": "topology",
    "device": "device",
    "recover": "recover",
    "watch": "watch",
    "metrics": "metrics",
    "doctor": "doctor",
    "plugins": "plugins",
    "capture": "capture",
    "replay": "capture",
    "demo": "demo",
    "help": "help",
    "completion": "completion",
    "man": "man",
}
# These open no connection: a URI given to them is only checked.
NOT_CONNECTED = {
    *("list", "show", "status", "topology", "doctor", "watch", "metrics", "plugins", "capture"),
    *("replay", "demo", "help", "completion", "man"),
}


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command and return its exit code; only SystemExit is raised."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    options: Options | None = None
    if None in (sys.stdin, sys.stdout, sys.stderr):  # Python's value for a closed descriptor
        from hostdev_core.cli.output import open_streams

        open_streams()
    try:
        options = _read(words)
        if options.uri is not None and options.command in NOT_CONNECTED:
            from hostdev_core.cli.request import check_uri

            check_uri(options.uri)
        try:
            return _command(options)(options)
        finally:  # also after an error: a temporary machine is removed, signal handlers restored
            for end in reversed(options.at_end):
                end()
    except SystemExit as leave:  # argparse: --help, --version
        return leave.code if isinstance(leave.code, int) else 1
    except BaseException as error:  # KeyboardInterrupt too: one line and an exit code, no traceback
        from hostdev_core.cli.failures import report
        from hostdev_core.cli.options import not_understood

        return report(error, options or not_understood(words))


def _read(words: "list[str]") -> "Options":
    from hostdev_core.cli.options import completion_line, plain_list

    options = plain_list(words) or completion_line(words)
    if options is None:
        from hostdev_core.cli.parser import parse

        options = parse(words)
    return options


def _command(options: "Options") -> "Callable[[Options], int]":
    from importlib import import_module

    module = import_module(f"hostdev_core.cli.commands.{MODULES[options.command]}")
    run: Callable[[Options], int] = module.run
    return run
