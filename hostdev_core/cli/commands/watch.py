"""`hostdev watch`: what happens to devices, until it is stopped. Opens no connection and loads no plugin."""

import json
import sys
import time
from contextlib import suppress

from hostdev_core.cli.failures import Stopped
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import clean, emit
from hostdev_core.cli.stops import signals_raise
from hostdev_core.watching.events import Event, EventKind
from hostdev_core.watching.watch import Watch


def run(options: Options) -> int:
    """Print events until the reader goes, or a signal comes: both are how a watch ends, and no failure."""
    with suppress(Stopped), signals_raise():
        host = open_host(options)
        with Watch(host, state=options.state, ends_with=(sys.stdout.fileno(),)) as events:
            for event in events:
                text = json.dumps(event.to_dict()) if options.json else _line(event)
                if not emit(text):
                    break
    return 0


def _line(event: Event) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    return clean(f"{moment}  {event.device}  {_words(event)}")


def _words(event: Event) -> str:
    owner = f"{event.owner.domain} ({event.owner.driver})" if event.owner else "the inactive list"
    if event.kind is EventKind.AT_WORK:
        return f"at work, {event.state} for {owner}: {event.reason}"
    words = {
        EventKind.BOUND: f"bound to {event.kernel_driver}",
        EventKind.UNBOUND: f"unbound from {event.kernel_driver}",
        EventKind.LENT: f"{'taken with its group for' if event.state == 'sibling' else 'lent to'} {owner}",
        EventKind.RETURNED: f"returned from {owner}",
        EventKind.STUCK: f"{event.state} (for {owner}): {event.reason}",
        EventKind.DRIFT: f"drift: {event.reason}",
        EventKind.HELD: f"held by {event.reason}",
    }
    text = words.get(event.kind, str(event.kind))
    return f"{text}, waits for its IOMMU group" if event.state == "waiting" else text
