"""Printing: clean text, aligned tables, JSON, errors; each answer in one write.

Texts of the machine (names of devices and domains, sysfs) may hold escapes that a terminal obeys: only
their printable characters are printed.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Section = tuple[str, Sequence[Sequence[str]]]


class UnprintedError(Exception):
    """The command did its work, and could not print its answer."""


def open_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Its descriptor is the lowest that is free: else a lock or a pipe would get it, and would be closed
    together with the terminal.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            import os

            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 lives as long as the process


def clean(text: object) -> str:
    """Put a foreign text on one line, without unprintable characters."""
    shown = str(text)
    if shown.isprintable():
        return shown
    spaced = " ".join(shown.split())
    return "".join(letter for letter in spaced if letter.isprintable())


def emit(text: str) -> None:
    """Print lines to standard output; a reader that closed the pipe is no failure of the command.

    Raises UnprintedError when they cannot be written for another reason: a disk is full.
    """
    if text:
        print_to(sys.stdout.write, sys.stdout.flush, text + "\n")


def print_to(write: "Callable[[str], object]", flush: "Callable[[], object]", text: str) -> None:
    """Write and flush; a closed pipe is no error, now or when Python flushes at its end."""
    try:
        _tolerate(sys.stdout)
        write(text)
        flush()
    except OSError as error:
        import os

        # The stream keeps the text that it could not write: Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UnprintedError(
                f"the answer cannot be printed: {error.strerror}. What was asked for is done;"
                " `hostdev status` has what is lent"
            ) from error


def emit_json(data: object) -> None:
    """Print a JSON document; everything outside ASCII is escaped."""
    import json

    emit(json.dumps(data, indent=2))


def help_width() -> int:
    """The width of help texts, as argparse has it."""
    return columns(1) - 2


def columns(descriptor: int) -> int:
    """The width of a stream: COLUMNS, else the terminal's, else 80.

    Found without shutil, which loads three compressors.
    """
    import os

    try:
        found = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        found = 0
    if found <= 0:
        try:
            found = os.get_terminal_size(descriptor).columns
        except OSError:  # no terminal
            pass
    return found if found > 0 else 80  # 0 where the terminal's size was never set


def is_coloured() -> bool:
    """Tell whether standard output takes colours: a terminal, unless NO_COLOR is set (no-color.org)."""
    import os

    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()


def table(headers: "Sequence[str]", sections: "Iterable[Section]") -> None:
    """Print rows in columns, under a heading for each section that has one."""
    cleaned = [(clean(title), [[*map(clean, row)] for row in rows]) for title, rows in sections]
    if is_terminal():  # only here, as importing rich takes longer than a listing
        from hostdev_core.cli import rich_output

        emit(rich_output.table(headers, cleaned))
    else:
        emit("\n".join(_lines(headers, cleaned)))


def _lines(headers: "Sequence[str]", sections: "list[tuple[str, list[list[str]]]]") -> "list[str]":
    every = [row for _, rows in sections for row in rows]  # the same widths in all sections
    widths = [max(map(len, column)) for column in zip(headers, *every, strict=True)]
    indent = "  " if any(title for title, _ in sections) else ""
    lines = [indent + _line(headers, widths)]
    for title, rows in sections:
        if title:
            lines.append(title)
        lines += (indent + _line(row, widths) for row in rows)
    return lines


def _line(row: "Sequence[str]", widths: "Sequence[int]") -> str:
    return "  ".join(map(str.ljust, row, widths)).rstrip()


def pairs(title: str, rows: "Iterable[tuple[str, object]]") -> None:
    """Print a heading, and names with their values below it; a value of None is left out."""
    shown = [(name, clean(value)) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    emit("\n".join([clean(title), *(f"  {name.ljust(width)}  {value}" for name, value in shown)]))


def print_error(message: object, more: "Iterable[object]" = ()) -> None:
    """Print a line to standard error, and an indented one for each further part."""
    lines = [f"hostdev: {clean(message)}", *(f"  {clean(part)}" for part in more)]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        pass  # standard error is closed: there is no place left to report it


def _tolerate(stream: object) -> None:
    """Let a stream print "?" for a character that its encoding lacks."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
