"""`hostdev explain`: why devices can be lent, or cannot."""

from hostdev_core.cli.commands.explain_devices import explain_devices
from hostdev_core.cli.options import Options


def run(options: Options) -> int:
    """Explain what is named."""
    return explain_devices(options)
