"""`hostdev explain`: why devices can be lent, or cannot; what messages about them mean.

A message is explained without a connection, and without a plugin.
"""

import io
import os
import shlex
import sys
from collections.abc import Iterator

from hostdev_core.cli.error_report import ErrorReport
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, emit_json, print_error
from hostdev_core.errors import InputError
from hostdev_core.known_errors.reading import Reading, read_log
from hostdev_core.known_errors.table import known_errors


def run(options: Options) -> int:
    """Explain what is named; exit code 1 when a device cannot be lent, or nothing is known of a message."""
    if (options.error is None) == (not options.devices):
        raise InputError(
            "explain needs devices or a message, one at a time: `hostdev explain DEVICE...`,"
            " `hostdev explain --error TEXT`, or `hostdev explain --error -` for a log on standard input"
        )
    if options.error is not None:
        return _explain_error(options, options.error)
    from hostdev_core.cli.commands.explain_devices import explain_devices

    return explain_devices(options)


def _explain_error(options: Options, text: str) -> int:
    """Explain the known messages in a text, or on standard input for `-`."""
    host = open_host(options)
    report = ErrorReport(_read(text), host)
    if options.json:
        emit_json(report.document())
    else:
        emit("\n".join(report.lines()))
    if report.unread is not None:
        print_error(f"not all is known of the devices: {report.unread}")
    if report.reading.unknown or not report.reading.findings:
        message, advice = report.unknown()
        print_error(message, [*_is_file(text), *advice])
    return 0 if report.reading.findings else 1


def _is_file(text: str) -> Iterator[str]:
    """Say how a log is given whose name was given in place of a message."""
    if "/" in text and os.path.isfile(text):
        yield f"it is a file; to read it: hostdev explain --error - < {shlex.quote(text)}"


def _read(text: str) -> Reading:
    if text != "-":
        return read_log(io.BytesIO(os.fsencode(text)), known_errors())
    try:
        return read_log(sys.stdin.buffer, known_errors())
    except OSError as error:  # a directory, a disk that fails
        raise InputError(f"standard input cannot be read: {error.strerror}") from error
