"""Exit codes, and the messages for failures: a line and its notes; a traceback with -vv only.

0 done; 1 refused or failed, nothing changed but what a reattach says; 2 usage; 3 something is stuck; 4
done, but the answer could not be printed; 5 `status`: a record does not tell the truth any more; 6
`doctor`: there is a problem; 128+n stopped by a signal, after the undo, or by a second one, which leaves
that to the worker.
"""

import shlex
import signal

from hostdev_core.cli.output import UnprintedError, emit_json, print_error
from hostdev_core.errors import (
    LEFT_BEHIND,
    WAS_DONE,
    DeviceInUseError,
    HostdevError,
    InputError,
    KernelTimeoutError,
    ReattachError,
    VetoError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hostdev_core.cli.options import Options

REFUSED, USAGE, STUCK, UNPRINTED, PROBLEM, SIGNALLED = 1, 2, 3, 4, 6, 128
NOT_GIVEN_BACK = "could not be given back"


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


def report(error: BaseException, options: "Options") -> int:
    """Print the error that ended the command, with --json for programs too; return its exit code."""
    # Python's own handler raises a plain one before handle_stops() has set ours.
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
        error = _same_notes(Stopped(signal.SIGINT), error)
    if options.verbose >= 2:
        _show_traceback(error)
    message, details = _message(error), [*_details(error)]
    print_error(message, details)
    # Where standard output itself has failed, nothing more is written to it.
    if options.json and not isinstance(error, UnprintedError):
        _print_document(error, message, details, options)
    return exit_code(error)


def _print_document(
    error: BaseException, message: str, details: "Sequence[str]", options: "Options"
) -> None:
    """Print the one document of a command that failed: its answer, if it has one, with the error."""
    from hostdev_core.cli.error_document import describe

    described = describe(error, message, details, options.program)
    try:
        emit_json({**options.answer, "error": described | {"exit_code": exit_code(error)}})
    except UnprintedError:
        pass  # standard error and the exit code have told it


def exit_code(error: BaseException) -> int:
    """Choose the exit code for an error; a stuck device goes before all else."""
    notes = _notes(error)
    # A prepare that failed, and whose undo failed, says the latter in a note.
    if _is_stuck(error) or any(NOT_GIVEN_BACK in note for note in notes):
        return STUCK
    if isinstance(error, UnprintedError) or WAS_DONE in notes:
        return UNPRINTED
    if isinstance(error, Stopped):
        return SIGNALLED + error.number
    return USAGE if isinstance(error, InputError) else REFUSED


def _is_stuck(error: BaseException) -> bool:
    """Tell whether an error leaves a device stuck; one that its guest still uses is where it was."""
    if isinstance(error, ReattachError):
        return not all(isinstance(part, DeviceInUseError) for part in error.exceptions)
    return isinstance(error, KernelTimeoutError)


def _message(error: BaseException) -> str:
    if isinstance(error, ReattachError):
        return error.message  # str() would count the errors
    if isinstance(error, OSError) and not isinstance(error, HostdevError) and error.strerror:
        name = f"{error.filename}: " if error.filename is not None else ""
        return f"{name}{error.strerror}"
    # A second signal: the worker goes on with the undo alone.
    if isinstance(error, Stopped) and any(note.startswith(LEFT_BEHIND) for note in _notes(error)):
        return f"left by {signal.Signals(error.number).name} before all was undone"
    if isinstance(error, (HostdevError, Stopped, UnprintedError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (-vv shows where)"


def _details(error: BaseException) -> "Iterator[str]":
    if isinstance(error, ReattachError):
        for part in error.exceptions:
            yield _message(part)
            yield from _details(part)
    if isinstance(error, VetoError) and (names := _passable(error)):
        yield f"to pass it: {shlex.join(word for name in names for word in ('--allow', name))}"
    yield from _notes(error)


def _passable(error: VetoError) -> "list[str]":
    """List the rules that refuse, each once; --allow passes every rule that a VetoError carries."""
    return list(dict.fromkeys(str(getattr(each, "rule", "veto")) for each in error.refusals))


def _notes(error: BaseException) -> "tuple[str, ...]":
    return tuple(getattr(error, "__notes__", ()))


def _show_traceback(error: BaseException) -> None:
    import sys
    import traceback

    text = "".join(traceback.format_exception(error))
    # Not clean(): the indentation stays, and repr() shows the escapes of a foreign text.
    print("\n".join(line if line.isprintable() else repr(line) for line in text.splitlines()),
          file=sys.stderr)  # fmt: skip


def _same_notes(error: BaseException, other: BaseException) -> BaseException:
    for note in _notes(other):
        error.add_note(note)
    return error
