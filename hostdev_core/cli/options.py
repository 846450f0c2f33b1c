"""The parsed command line, and the host that it names."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hostdev_core.host import Host
    from hostdev_core.runtime.deadlines import Deadlines


class Options:
    """One command line. These are the defaults; the parser sets the given options on the object."""

    command = ""
    action = ""
    uri: str | None = None
    host: str | None = None
    state_dir: str | None = None
    timeout: float | None = None
    verbose = 0
    json = False
    groups = False
    all_facts = False
    quiet = False
    classes: "list[str] | tuple[str, ...]" = ()
    drivers: "list[str] | tuple[str, ...]" = ()
    iommu_groups: "list[str] | tuple[str, ...]" = ()
    states: "list[str] | tuple[str, ...]" = ()
    lendable: str | None = None  # empty: by the connection that is used without it
    find: "list[str] | tuple[str, ...]" = ()
    sort: str | None = None
    columns: str | None = None
    domain = ""
    device = ""
    devices: "list[str] | tuple[str, ...]" = ()
    unmanaged = False
    stub: str | None = None
    whole_group = False
    same_owner = False
    hotplug = False
    require_reset = False
    allow: "list[str] | tuple[str, ...]" = ()
    uuid: str | None = None
    as_is = False
    to_host = False
    svg: str | None = None
    html: str | None = None
    file = "-"
    directory = ""
    serials = False
    error: str | None = None
    state = False
    textfile: str | None = None
    topic: "list[str] | tuple[str, ...]" = ()
    shell = ""
    line: "list[str] | None" = None
    write: str | None = None
    # What --json prints beside an error: what a call that failed has done all the same.
    answer: "dict[str, Any]" = {}
    # Called when the command ends, last added first.
    at_end: "tuple[Callable[[], object], ...]" = ()

    @property
    def words(self) -> str:
        """The command as it was typed, without its arguments."""
        return f"{self.command} {self.action}".strip()

    @property
    def program(self) -> "tuple[str, ...]":
        """The first words of another command for the same machine."""
        from hostdev_core.model.words import option

        named = {"--host": self.host, "--state-dir": self.state_dir}
        given = (option(name, value) for name, value in named.items() if value is not None)
        return ("hostdev", *(word for words in given for word in words))


def plain_list(words: "list[str]") -> Options | None:
    """Parse `hostdev list` with options that have no value; None for every other command line.

    argparse costs a third of that command's time, so the most frequent one is parsed without it.
    """
    if words[:1] != ["list"] or not {*words[1:]} <= {"--json", "--groups", "--all-facts", "-q"}:
        return None
    options = Options()
    options.command = "list"
    options.json, options.groups = "--json" in words, "--groups" in words
    options.all_facts, options.quiet = "--all-facts" in words, "-q" in words
    return options


def completion_line(words: "list[str]") -> Options | None:
    """Parse `hostdev completion --line ...`; None for every other command line.

    By it a shell's script asks: it is in no help, and what follows are the script's own words.
    """
    if words[:2] != ["completion", "--line"]:
        return None
    options = Options()
    options.command, options.line = "completion", words[2:]
    return options


def not_understood(words: "list[str]") -> Options:
    """Make the options of a line that the parser did not take: of its words only `--json` is heard."""
    options = Options()
    options.json = "--json" in words[: words.index("--") if "--" in words else None]
    return options


def open_host(options: Options) -> "Host":
    """Open the simulated machine of `--host`, or of HOSTDEV_SIMULATED_HOST, or this machine.

    A file of `hostdev capture` is unpacked for this command only.
    """
    if options.host is None:
        from hostdev_core.this_machine import this_machine

        return this_machine(state_dir=options.state_dir)
    if options.state_dir is not None:
        from hostdev_core.errors import InputError

        raise InputError("--state-dir is for this machine; the simulated one of --host has its own")
    # A path that is missing goes to OpenedMachine, whose error says what is wanted.
    if os.path.exists(options.host) and not os.path.isdir(options.host):
        from functools import partial
        from shutil import rmtree

        from hostdev_core.simulated import SimulatedHost

        host = SimulatedHost.replay(options.host)
        options.at_end += (partial(rmtree, host.root, ignore_errors=True),)
        return host
    from hostdev_core.simulated.opened import OpenedMachine

    return OpenedMachine(options.host)


def deadlines(options: Options) -> "Deadlines | None":
    """Make the deadlines of `--timeout`, the same for all that the kernel does; None keeps the defaults."""
    from hostdev_core.runtime.deadlines import Deadlines

    if options.timeout is None:
        return None
    seconds = options.timeout
    return Deadlines(seconds, seconds, seconds, seconds, seconds)
