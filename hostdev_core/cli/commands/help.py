"""`hostdev help [COMMAND...]`: the help of a command, as `hostdev COMMAND --help` prints it."""

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit_json
from hostdev_core.cli.parser import make_parser


def run(options: Options) -> int:
    """Print the help; UsageError for a command that there is none of."""
    parser = make_parser(options.topic).below(options.topic)
    if options.json:
        emit_json({"help": parser.format_help()})
    else:
        parser.print_help()
    return 0
