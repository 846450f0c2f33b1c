"""Printing: clean text, aligned tables, JSON, errors; each answer in one write.

Texts of the machine (names of devices and domains, sysfs) may hold escapes that a terminal obeys: only
their printable characters are printed.
"""

import sys

from hostdev_core.cli.layout import lay_out, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostdev_core.cli.layout import Column, Section


_PLAIN = str.maketrans("…├└─│·", "~|`-|*")


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


def emit(text: str) -> bool:
    """Print lines to standard output; a reader that closed the pipe is no failure of the command.

    False where the reader has gone. Raises UnprintedError when they cannot be written for another reason: a
    disk is full.
    """
    return not text or print_to(sys.stdout.write, sys.stdout.flush, text + "\n")


def print_to(write: "Callable[[str], object]", flush: "Callable[[], object]", text: str) -> bool:
    """Write and flush; a closed pipe is no error, now or when Python flushes at its end. False for one."""
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
        return False
    return True


def emit_json(data: object) -> None:
    """Print a JSON document; everything outside ASCII is escaped."""
    import json

    emit(json.dumps(data, indent=2))


def help_width() -> int:
    """The width of help texts, as argparse has it."""
    return terminal_width(1) - 2


def terminal_width(descriptor: int) -> int:
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


def width_of_output() -> int | None:
    """The columns of the terminal that standard output is; None for a pipe or a file."""
    return terminal_width(1) if is_terminal() else None


def table(columns: "Sequence[Column]", sections: "Iterable[Section]") -> None:
    """Print rows in columns, under a heading for each section that has one."""
    cleaned = [(clean(title), [[*map(clean, row)] for row in rows]) for title, rows in sections]
    lines = lay_out(columns, cleaned, width_of_output(), guides=is_terminal())
    if is_coloured():  # only here, as importing rich takes longer than a listing
        from hostdev_core.cli import rich_output

        emit(_in_encoding(rich_output.coloured(lines)))
    else:
        emit("\n".join(map(plain, lines)))


def prose(lines: "Iterable[str]") -> None:
    """Print lines of text, folded to the terminal; each keeps its indentation, and its rest gets two more."""
    width = width_of_output()
    emit("\n".join(part for line in lines for part in _indented(line, width)))


def _indented(line: str, width: int | None) -> "list[str]":
    text = line.lstrip(" ")
    indent = " " * (len(line) - len(text))
    return fold(clean(text), width, indent, indent + "  ")


def pairs(title: str, rows: "Iterable[tuple[str, object]]", *, apart: bool = False) -> None:
    """Print a heading, and names with their values below it; a value of None is left out.

    `apart`: an empty line comes before it.
    """
    shown = [(name, clean(value)) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    room = width_of_output()
    lines = [*([""] if apart else []), *fold(clean(title), room)]
    for name, value in shown:
        lines += fold(value, room, f"  {name.ljust(width)}  ", " " * (width + 4))
    emit("\n".join(lines))


def print_error(message: object, more: "Iterable[object]" = ()) -> None:
    """Print a line to standard error, and an indented one for each further part; folded on a terminal."""
    width = terminal_width(2) if sys.stderr is not None and sys.stderr.isatty() else None
    lines = fold(clean(message), width, "hostdev: ", "  ")
    for part in more:
        lines += fold(clean(part), width, "  ", "    ")
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        pass  # standard error is closed: there is no place left to report it


def fold(text: str, width: int | None, first: str = "", indent: str = "  ") -> "list[str]":
    """Fold a text as `fitting.fold`; a width of None leaves it on one line."""
    if width is None or not text:
        return [first + text]
    from hostdev_core.cli import fitting

    return fitting.fold(text, width, first, indent)


def _in_encoding(text: str) -> str:
    """Replace the marks and lines of tables where the terminal's encoding lacks them."""
    if (sys.stdout.encoding or "").lower().startswith("utf"):
        return text
    return text.translate(_PLAIN)


def _tolerate(stream: object) -> None:
    """Let a stream print "?" for a character that its encoding lacks."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
