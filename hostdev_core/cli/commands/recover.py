"""`hostdev recover`: finish or undo what killed commands left."""

from hostdev_core.cli.commands.status import stuck_lines
from hostdev_core.cli.descriptions import freed_facts, outcome_words
from hostdev_core.cli.failures import STUCK
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import complain, emit, emit_json
from hostdev_core.cli.session import connected
from hostdev_core.model.assignment import Returned


def run(options: Options) -> int:
    """Bring everything home that nobody works on; exit code 3 when something stays stuck."""
    with connected(options) as conn:
        returned = conn.recover()
    stuck = stuck_lines(conn.host)
    if options.json:
        more = {"gone": [*returned.gone], "freed": freed_facts(returned)}
        emit_json({"returned": [*returned], **more, "stuck": stuck})
    else:
        emit("\n".join(_line(returned, address) for address in returned) or "nothing to recover")
        if stuck:
            complain("still stuck:", stuck)
    return STUCK if stuck else 0


def _line(returned: Returned, address: str) -> str:
    return outcome_words(returned, address) if address in returned.gone else f"{address} is back"
