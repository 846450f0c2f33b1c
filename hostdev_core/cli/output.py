"""What people see: clean text, aligned tables, one write.

What comes from the machine (names of devices, of domains, texts of sysfs) may hold escapes that a
terminal obeys; nothing of that kind is printed.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Section = tuple[str, Sequence[Sequence[str]]]


class UntoldError(Exception):
    """The command did what it was asked, and its answer could not be printed."""


def open_streams() -> None:
    """Give a standard stream that is closed a place to go.

    Its descriptor is the lowest that is free: else a lock or a pipe would get it, and be let go of
    together with the terminal.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            import os

            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 lives as long as the process


def clean(text: object) -> str:
    """A foreign text on one line, without anything that is not printable."""
    shown = str(text)
    if shown.isprintable():
        return shown
    spaced = " ".join(shown.split())
    return "".join(letter for letter in spaced if letter.isprintable())


def emit(text: str) -> None:
    """Print lines; nobody being there to read them any more is no failure of the command.

    Raises UntoldError when they cannot be written for another reason: a disk is full.
    """
    if text:
        print_to(sys.stdout.write, sys.stdout.flush, text + "\n")


def print_to(write: "Callable[[str], object]", flush: "Callable[[], object]", text: str) -> None:
    """Write and flush; a reader that went away is no error, now or when Python ends."""
    try:
        _tolerate(sys.stdout)
        write(text)
        flush()
    except OSError as error:
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UntoldError(
                f"the answer cannot be printed: {error.strerror}. What was asked for is done;"
                " `hostdev status` has what is lent"
            ) from error


def emit_json(data: object) -> None:
    """Print a JSON document; everything outside ASCII is escaped."""
    import json

    emit(json.dumps(data, indent=2))


def is_terminal() -> bool:
    """Whether a person reads the output."""
    return sys.stdout.isatty()


def table(headers: "Sequence[str]", sections: "Iterable[Section]") -> None:
    """Print rows in columns, under a heading for each section that has one."""
    cleaned = [(clean(title), [[*map(clean, row)] for row in rows]) for title, rows in sections]
    if is_terminal():
        from hostdev_core.cli import rich_output

        emit(rich_output.table(headers, cleaned))
    else:
        emit("\n".join(_lines(headers, cleaned)))


def _lines(headers: "Sequence[str]", sections: "list[tuple[str, list[list[str]]]]") -> "list[str]":
    every = [row for _, rows in sections for row in rows]
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


def complain(message: object, more: "Iterable[object]" = ()) -> None:
    """One line on stderr, and one more for each further part."""
    lines = [f"hostdev: {clean(message)}", *(f"  {clean(part)}" for part in more)]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        pass  # whom should this be told?


def _tolerate(stream: object) -> None:
    """A letter that the terminal's encoding lacks is shown as "?"."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
