"""`hostdev doctor`: what keeps this host's devices from being lent. Opens no connection."""

from collections.abc import Iterator, Sequence

from hostdev_core.cli.failures import PROBLEM
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import clean, emit, emit_json, fold, is_coloured, width_of_output
from hostdev_core.doctor.examine import examine
from hostdev_core.doctor.finding import Finding, Level

MOST = 6  # lines of evidence; --json has all
_INDENT = 9  # the width of the column of levels
_NARROWEST = 20  # columns for the text, however narrow the terminal says it is


def run(options: Options) -> int:
    """Print the findings, problems first; exit code 6 (PROBLEM) when there is one."""
    found = examine(open_host(options))
    problems = [finding for finding in found if finding.level == Level.PROBLEM]
    if options.json:
        emit_json(
            {"findings": [each._asdict() for each in found], "problems": [p.code for p in problems]}
        )
    else:
        _show(found, with_all=options.verbose > 0)
    return PROBLEM if problems else 0


def _show(found: Sequence[Finding], *, with_all: bool) -> None:
    lines = [line for finding in found for line in _lines(finding, with_all=with_all)]
    if is_coloured():
        from hostdev_core.cli.rich_output import levelled

        emit(f"{levelled(lines, _INDENT)}\n{_summary(found)}")
    else:
        emit("\n".join([*(f"{level:{_INDENT}}{text}" for level, text in lines), _summary(found)]))


def _lines(finding: Finding, *, with_all: bool) -> Iterator[tuple[str, str]]:
    """Yield the lines of a finding, each with the level where it begins one."""
    room = width_of_output()
    width = None if room is None else max(room - 1 - _INDENT, _NARROWEST)  # a full line may wrap
    title, *more = fold(f"{clean(finding.title)} [{finding.code}]", width, indent="")
    yield finding.level, title
    texts = list(more)
    if with_all or finding.level != Level.OK:
        texts += _evidence(finding, width, with_all=with_all)
        texts += fold(f"do: {clean(finding.remedy)}", width) if finding.remedy else []
    yield from (("", text) for text in texts)


def _evidence(finding: Finding, width: int | None, *, with_all: bool) -> Iterator[str]:
    shown = finding.evidence if with_all else finding.evidence[:MOST]
    for fact in shown:
        yield from fold(f"- {clean(fact)}", width)
    if left := len(finding.evidence) - len(shown):
        yield f"- and {left} more (-v shows all)"


def _summary(found: Sequence[Finding]) -> str:
    problems, notes, fine = (sum(f.level == level for f in found) for level in Level)
    told = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((problems, "problem"), (notes, "note"))
    ]
    return f"{', '.join(told)}; {fine} ok"
