"""`hostdev recover`: finish or undo what killed commands left."""

from hostdev_core.cli.commands.status import stuck_lines
from hostdev_core.cli.failures import STUCK
from hostdev_core.cli.options import Options
from hostdev_core.cli.outcomes import describe_freed, outcome_text
from hostdev_core.cli.output import emit_json, print_error, prose
from hostdev_core.cli.session import connected
from hostdev_core.model.assignment import Returned


def run(options: Options) -> int:
    """Give back every device of a dead operation; exit code 3 when something stays stuck."""
    with connected(options) as conn:
        returned = conn.recover()
    stuck = stuck_lines(conn.host)
    if options.json:
        more = {"gone": [*returned.gone], "freed": describe_freed(returned)}
        emit_json({"returned": [*returned], **more, "stuck": stuck})
    else:
        prose([_line(returned, address) for address in returned] or ["nothing to recover"])
        if stuck:
            print_error("still stuck:", stuck)
    return STUCK if stuck else 0


def _line(returned: Returned, address: str) -> str:
    return outcome_text(returned, address) if address in returned.gone else f"{address} is back"
