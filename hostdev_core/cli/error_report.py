"""The report of `hostdev explain --error`: the known messages, what helps, and the devices they name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hostdev_core.cli.output import clean, fold, width_of_output
from hostdev_core.errors import HostdevError
from hostdev_core.facts.facts import Facts
from hostdev_core.host import Host
from hostdev_core.known_errors.entry import Wording
from hostdev_core.known_errors.reading import Finding, Reading

if TYPE_CHECKING:
    from hostdev_core.facts.use import Description

SHOWN = 300  # characters of a line that is unknown
ADVICE = (
    "messages are known in English, as `LC_ALL=C` has them; docs/known-errors.md lists them",
    "`hostdev show DEVICE` and `hostdev plan DOMAIN DEVICE` tell what keeps a device from being lent",
    "the kernel's log often has the reason: give it all, `dmesg | hostdev explain --error -`",
)


class ErrorReport:
    """What is known in a text, beside what this host has of the devices in it."""

    def __init__(self, reading: Reading, host: Host) -> None:
        """Look at the host when a message names a device or a group; without that nothing is read."""
        self.reading = reading
        self._facts: Facts | None = None
        self.unread: str | None = None
        if any(finding.devices or finding.groups for finding in reading.findings):
            try:
                self._facts = Facts.of(host)
                self.unread = self._facts.inventory.unread
            except HostdevError as error:  # the explanation is true on any host
                self.unread = str(error)

    def document(self) -> dict[str, Any]:
        """Render the report for JSON."""
        return {
            "errors": [self._describe(finding) for finding in self.reading.findings],
            "unknown": [*self.reading.unknown],
            "lines": self.reading.lines,
        }

    def lines(self) -> Iterator[str]:
        """Render the report for people, folded to the terminal's width."""
        for number, finding in enumerate(self.reading.findings):
            if number:
                yield ""
            yield from self._explain(finding)

    def unknown(self) -> tuple[str, list[str]]:
        """Say what is not known, and what to do next: a message and its further lines."""
        lines = [clean(line)[:SHOWN] for line in self.reading.unknown]
        if self.reading.findings:
            return f"not known beside: {lines[0]}", lines[1:]
        if not self.reading.lines:
            return "there is no message to explain: the text is empty", []
        if len(lines) == 1:
            return f"not known: {lines[0]}", [*ADVICE]
        return f"no known message in {self.reading.lines} lines", [*ADVICE]

    def _describe(self, finding: Finding) -> dict[str, Any]:
        error = finding.error
        return {
            "name": error.name,
            "program": error.program,
            "symptom": error.symptom.value,
            "text": finding.line,
            "line": finding.number,
            "count": finding.count,
            "cause": error.cause,
            "remedy": error.remedy,
            "commands": [*self._commands(finding)],
            "sources": [_source(wording) for wording in error.wordings],
            "devices": [
                {key: device.get(key) for key in ("kind", "address", *_FACTS)}
                for device in self._devices(finding)
            ],
        }

    def _explain(self, finding: Finding) -> Iterator[str]:
        error, times = finding.error, f", {finding.count} times" * (finding.count > 1)
        yield from _fold("", finding.line)
        yield from _fold("  ", f"[{error.name}] {error.program}, line {finding.number}{times}")
        yield from _fold("  cause   ", error.cause)
        yield from _fold("  remedy  ", error.remedy)
        for device in self._devices(finding):
            yield from _fold("  device  ", _here(device))
        for command in self._commands(finding):
            yield f"  try     {clean(command)}"  # not folded: it is to be copied

    def _devices(self, finding: Finding) -> "Iterator[Description]":
        """Describe the devices of this host that a message names, by themselves or by their group."""
        if self._facts is None:
            return
        inventory = self._facts.inventory
        groups = [member.name for number in finding.groups for member in inventory.group(number)]
        wanted = dict.fromkeys((*finding.devices, *groups))
        for name in wanted:
            if name in inventory.pci:
                yield self._facts.describe(inventory.pci[name])
            for device in inventory.usb.values():
                if name in {device.number, device.port}:
                    yield self._facts.describe(device)

    def _commands(self, finding: Finding) -> Iterator[str]:
        """Put the device and the group of the message into the commands, where there are any."""
        here = next((str(device["address"]) for device in self._devices(finding)), "DEVICE")
        group = next(map(str, finding.groups), "GROUP")
        for command in finding.error.commands:
            yield command.replace("DEVICE", here).replace("GROUP", group)


_FACTS = ("kernel_driver", "iommu_group", "state", "use", "used_by")


def _here(device: "Description") -> str:
    parts = [f"{device['address']} is here:"]
    if device["kind"] == "pci":
        group = device["iommu_group"]
        parts.append(f"on {device['kernel_driver'] or 'no driver'},")
        parts.append("no IOMMU group," if group is None else f"group {group},")
    return " ".join([*parts, device["use"]["text"]])


def _source(wording: Wording) -> str:
    return f"{wording.source}; read in {wording.versions}"


def _fold(head: str, text: str) -> list[str]:
    """Fold a text to the terminal's width; its further lines are indented as far as the head."""
    return fold(clean(text), width_of_output(), head, " " * (len(head) or 2))
