"""What `--json` prints for an error: `{"error": {...}}`, with a code that stays, and the facts.

The code is the name of the error's class, in small letters: `device-in-use` for DeviceInUseError. An error
of a class that a plugin has made has the code of the class below which that stands.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from hostdev_core import errors
from hostdev_core.cli.arguments import UsageError
from hostdev_core.errors import HostdevError, Origin, ReattachError, VetoError
from hostdev_core.model.device import UsedBy
from hostdev_core.model.rulebook import Refusal

SYSTEM, UNEXPECTED, STOPPED = "system", "unexpected", "stopped"
# A command in a message stands between backticks; a shell's quotes in it may hold one.
_COMMAND = re.compile(r"""`(hostdev (?:[^`'"]|'[^']*'|"[^"]*")*)`""")


def _code(kind: type[BaseException]) -> str:
    name = kind.__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).replace("URI", "uri").lower()


CODES = {
    kind: _code(kind)
    for kind in (*vars(errors).values(), UsageError)
    if isinstance(kind, type) and issubclass(kind, HostdevError)
}
"""The code of each class of error; those of what is none of hostdev's are SYSTEM, UNEXPECTED and STOPPED."""


def code_of(error: BaseException) -> str:
    """The code of an error."""
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    known = (CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    return next(known, SYSTEM if isinstance(error, OSError) else UNEXPECTED)


def describe(
    error: BaseException, message: str, details: Sequence[str], program: Sequence[str]
) -> dict[str, Any]:
    """Describe an error; `message` and `details` are the lines that people read.

    `remedy` are the commands among them, ready for a shell, each for the host of this command: `program`
    has the words that they begin with.
    """
    device = getattr(error, "device", None)
    found = (text for line in (message, *details) for text in _COMMAND.findall(line))
    begin = shlex.join(program)
    fixed = {
        "code": code_of(error),
        "rule": getattr(error, "rule", None),
        "message": message,
        "device": device if isinstance(device, str) else None,
        "remedy": [begin + text.removeprefix("hostdev") for text in dict.fromkeys(found)],
        "details": [*details],
    }
    return {**fixed, **{name: fact for name, fact in _facts(error).items() if name not in fixed}}


def _facts(error: BaseException) -> dict[str, Any]:
    """The attributes of an error that are its own; of a ReattachError each device's error."""
    if isinstance(error, ReattachError):
        parts = [{"code": code_of(each), "message": str(each),
                  "device": getattr(each, "device", None)} for each in error.exceptions]  # fmt: skip
        return {"errors": parts, "returned": [*error.returned]}
    if not isinstance(error, HostdevError):
        return {"errno": error.errno} if isinstance(error, OSError) else {}
    facts = {name: _plain(value) for name, value in vars(error).items() if name[0] != "_"}
    if isinstance(error, VetoError):
        facts["allow"] = [*dict.fromkeys(_rule(each) for each in error.refusals)]
    return facts


def _rule(refusal: object) -> str:
    return str(getattr(refusal, "rule", "veto"))


def _plain(value: object) -> Any:
    """Render a fact for JSON; one of a class that is not known becomes its text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, UsedBy | Refusal | Origin):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [*map(_plain, value)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return str(value)
