"""What became of devices that were given back: dicts with the keys of `--json`, and words."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.facts.use import Description
    from hostdev_core.model.assignment import Returned


def outcome_of(returned: "Returned", address: str) -> str:
    """Name the outcome for a device that was given back: `given back`, `gone` or `replaced`."""
    if address in returned.replaced:
        return "replaced"
    return "gone" if address in returned.gone else "given back"


def describe_freed(returned: "Returned") -> "list[Description]":
    """Describe the devices at replaced ones' addresses that were taken off the stub driver."""
    return [{"address": address, "kernel_driver": driver} for address, driver in returned.freed]


def outcome_text(returned: "Returned", address: str) -> str:
    """Render the outcome for people."""
    freed = dict(returned.freed)
    other = "was left alone"
    if address in freed:
        other = f"had been taken to its stub and is on {freed[address] or 'no driver'} now"
    texts = {
        "replaced": f"was replaced by another device, which {other}: its record is removed",
        "gone": "was unplugged: its record is removed",
        "given back": "is given back",
    }
    return f"{address} {texts[outcome_of(returned, address)]}"
