"""What may stand at the end of a command line, for the completion of shells.

What can be typed is read from the parser. What is alive is asked of the host that the line names: its
devices, and the domains of its ledger. No plugin is loaded, which would take longer than a person waits:
what plugins bring (their rules and URIs) a shell's script has from when it was made.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from hostdev_core.cli.device_columns import COLUMNS
from hostdev_core.cli.grammar import Value
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.parser import COMMANDS
from hostdev_core.cli.typed_line import Line, Typed
from hostdev_core.facts.class_words import KINDS
from hostdev_core.facts.use import CODES
from hostdev_core.inventory.inventory import Inventory, look
from hostdev_core.model.device import Device, PCIDevice
from hostdev_core.model.record import Record
from hostdev_core.model.rulebook import RULES

PATHS = {"FILE": "files", "DIR": "directories", "DIR|FILE": "files"}
"""The values for which a shell offers its own names of files, and of which kind."""


class Candidate(NamedTuple):
    """A word, and what is told beside it."""

    word: str
    help: str = ""


class Completion(NamedTuple):
    """What may be typed; `paths` is "files" or "directories" where the shell is to offer its own."""

    candidates: Sequence[Candidate] = ()
    paths: str = ""


class OfPlugins(NamedTuple):
    """What plugins bring, as a shell's script knows it: rules that they refuse by, URIs of drivers."""

    rules: Sequence[str] = ()
    uris: Sequence[str] = ()


def complete(line: Line, plugins: OfPlugins) -> Completion:
    """Find what may stand at the end of a line; nothing for one that is no beginning of a command."""
    typed = Typed(line.words)
    found = Completion() if typed.is_lost else _next(typed, line.last, plugins)
    fits = {each.word: each for each in found.candidates if _fits(typed, line.last, each.word)}
    return Completion([*fits.values()], found.paths)


def _fits(typed: Typed, last: str, word: str) -> bool:
    """Whether a word goes on from what is typed, can be shown, and would not be read as an option."""
    is_option = typed.waiting is None and typed.is_option(word)
    return word.startswith(last) and word.isprintable() and is_option == typed.is_option(last)


def _next(typed: Typed, last: str, plugins: OfPlugins) -> Completion:
    words = _Words(typed.options, plugins, last)
    if typed.waiting is not None and typed.waiting.value is not None:
        return words.of(typed.waiting.value)
    if typed.is_option(last):
        name, equals, _ = last.partition("=")
        option = typed.option(name)
        if equals:  # the paths behind "=" are the shell's own matter
            value = option.value if option else None
            found = words.of(value).candidates if value else ()
            return Completion([Candidate(f"{name}={each.word}", each.help) for each in found])
        forms = ((form, each.help) for each in typed.open_options for form in each.forms)
        return Completion([Candidate(*each) for each in forms])
    if typed.command.actions:
        return Completion([Candidate(*each) for each in typed.command.actions])
    word = typed.next_word
    return words.of(word.value, is_word=True) if word else Completion()


class _Words:
    """The words that a value may be, by its name in capitals; `last` is what is typed of it."""

    def __init__(self, options: Options, plugins: OfPlugins, last: str) -> None:
        self._options = options
        self._plugins = plugins
        self._last = last

    def of(self, value: Value, *, is_word: bool = False) -> Completion:
        """The words for a value; none for one of which only its user knows what it may be.

        `is_word`: it is no option's. An option takes the rules that can be passed, a word any rule.
        """
        if value.choices:
            return Completion([*map(Candidate, value.choices)])
        kinds: dict[str, Callable[[], Iterable[Candidate]]] = {
            "DEVICE": self._devices,
            "DOMAIN": self._domains,
            "URI": self._uris,
            "RULE": lambda: self._rules(only_passable=not is_word),
            "CLASS": lambda: map(Candidate, KINDS),
            "STATE": lambda: map(Candidate, CODES),
            "COLUMN": lambda: map(Candidate, COLUMNS),
            "COMMAND": lambda: (Candidate(name, about) for name, (about, _) in COMMANDS.items()),
        }
        find = kinds.get(value.name)
        return Completion([*find()] if find else (), PATHS.get(value.name, ""))

    def _look(self) -> Inventory:
        try:
            return look(open_host(self._options), tolerant=True)
        finally:
            for end in self._options.at_end:  # the machine of a file is temporary
                end()

    def _records(self) -> Iterable[Record]:
        return (self._look().records or {}).values()

    def _devices(self) -> Iterator[Candidate]:
        inventory = self._look()
        for device in inventory.devices:
            name = device.name
            short = name if name.startswith(self._last) else name.removeprefix("0000:")
            yield Candidate(short, _about(device))
        for record in inventory.absent:
            yield Candidate(record.address, "is not there any more")

    def _domains(self) -> Iterator[Candidate]:
        held: dict[str, list[str]] = {}
        for record in self._records():
            if record.owner is not None:
                held.setdefault(record.owner.domain, []).append(record.address)
        for domain, addresses in sorted(held.items()):
            yield Candidate(domain, f"has {', '.join(addresses)}")

    def _uris(self) -> Iterator[Candidate]:
        owners = (record.owner for record in self._records() if record.owner)
        named = os.environ.get("HOSTDEV_DEFAULT_URI", "")
        uris = [*self._plugins.uris, *filter(None, [named]), *sorted({o.uri for o in owners})]
        return map(Candidate, dict.fromkeys(uris))

    def _rules(self, *, only_passable: bool) -> Iterator[Candidate]:
        for rule in RULES.values():
            if rule.passable or not only_passable:
                yield Candidate(rule.name, f"refuses {rule.refuses}")
        yield from map(Candidate, self._plugins.rules)


def _about(device: Device) -> str:
    """What tells a device from others, in few words that need no database of names."""
    whose = f", lent to {device.used_by.domain}" if device.used_by else ""
    if isinstance(device, PCIDevice):
        return f"{device.ids} on {device.kernel_driver or 'no driver'}{whose}"
    return f"{device.ids} {device.label or ''}".rstrip() + whose
