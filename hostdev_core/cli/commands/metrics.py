"""`hostdev metrics`: figures for Prometheus. Opens no connection and loads no plugin."""

from hostdev_core.cli.failures import REFUSED
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, print_error
from hostdev_core.errors import InputError
from hostdev_core.watching.metrics import measure, write_textfile


def run(options: Options) -> int:
    """Print or write the figures; exit code 1 when the ledger cannot be read, which is one of them."""
    if options.json:
        raise InputError(
            "metrics are in the form of Prometheus; `hostdev status --json` is the same as JSON"
        )
    figures = measure(open_host(options))
    if options.textfile is None:
        emit(figures.text.rstrip("\n"))
    else:
        write_textfile(options.textfile, figures.text)
    if figures.unread is None:
        return 0
    print_error(f"whose the devices are is unknown: {figures.unread}")
    return REFUSED
