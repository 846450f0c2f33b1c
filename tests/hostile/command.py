"""Calls the command's own `main` in this process and holds what it prints against what it promises."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from hostdev_core import HostdevError
from hostdev_core.cli import main
from hostdev_core.simulated import SimulatedHost

CODES = {0, 1, 2, 3}
# Escapes, controls, a bidi override, a line separator, digits of other scripts, half a surrogate pair.
NASTY = (
    "", " ", ".", "..", "/", "../../etc/passwd", "a/b", "\x00", "a\nb", "\x1b[31mred", "\x9b31m",
    "\x7f", "\u202eabc", "\u2066", "\u2028", "%2e%2e%2f", "\u0660\u0661", "\udc80", "\ufeff", "-",
    "--", "'; DROP TABLE records; --", "{}", "%s%n", "x" * 300, "9" * 5000, "(null)",
)  # fmt: skip
texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=40)
words = texts.map(lambda text: text.replace("\x00", ""))  # execve(2) ends a word at its first NUL
# What can stand where a text or a device should: from a plugin, from JSON, by mistake.
things = texts | st.sampled_from(
    [None, True, 7, -1, 10**5000, 0.5, float("nan"), b"01:00.0", [], ["x"], {}, {"a": 1}, object()]
)
quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# For what runs the command several times over: a few examples, and no search for a smaller one.
slow = settings(quick, max_examples=12, phases=[Phase.explicit, Phase.generate])


class Answer(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    err: str


def call(*words: str, host: SimulatedHost | None = None) -> Answer:
    """Run the command; fails unless code and output are what is promised for every input."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    place = () if host is None else ("--host", host.root)
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*place, *words])
    answer = Answer(code, *(_text_of(stream) for stream in (out, err)))
    assert code in CODES, answer
    check_words(answer.out + answer.err)
    return answer


def give_back(host: SimulatedHost) -> None:
    """Everything that is lent goes home, whoever has it."""
    for record in host.ledger.records():
        assert record.owner is not None
        call("reattach", "-c", "qemu:///system", "--", record.owner.domain, host=host)
    assert host.ledger.records() == []


def check_words(text: str) -> None:
    """Fail unless a person may see this on a terminal, and nothing in it is hostdev's own bug."""
    assert "Traceback" not in text
    assert "unexpected" not in text
    assert all(line.isprintable() for line in text.split("\n")), repr(text)


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.detach()
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8")


def attempt(work: Callable[[], Any], kind: type[HostdevError] = HostdevError) -> Any:
    """What a call answers; None when it is refused, which an error of this kind must say."""
    try:
        return work()
    except kind as error:
        message = str(error)
    assert 0 < len(message) < 3000
    return None
