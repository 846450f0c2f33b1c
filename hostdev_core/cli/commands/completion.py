"""`hostdev completion SHELL`: print a shell's script; and the answers that such a script asks for."""

import os
import re
from collections.abc import Iterator

from hostdev_core.cli.completion import OfPlugins, complete
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import clean, emit, emit_json
from hostdev_core.cli.typed_line import Line, split

SCRIPTS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "shells")
# Between double quotes these keep a meaning (POSIX.1-2017, XCU 2.2.3); outside of quotes, all but some do.
_IN_DOUBLE_QUOTES = re.compile(r'([\\"$`])')
_OUTSIDE = re.compile(r"([^\w@%+=:,./-])")


def run(options: Options) -> int:
    """Print the script, or what may stand at the end of a line."""
    if options.line is not None:
        return _answer(options.line)
    script = _script(options.shell)
    if options.json:
        emit_json({"shell": options.shell, "script": script})
    else:
        emit(script)
    return 0


def _script(shell: str) -> str:
    import shlex

    with open(os.path.join(SCRIPTS, f"hostdev.{shell}"), encoding="utf-8") as file:
        text = file.read().rstrip()
    plugins = _of_plugins()
    for name, words in (("@RULES@", plugins.rules), ("@URIS@", plugins.uris)):
        text = text.replace(name, shlex.quote(" ".join(words)))
    return text


def _of_plugins() -> OfPlugins:
    """Load the plugins, and read what a script is to know of them."""
    # Here, as above: not when a shell asks, which has a person waiting.
    import logging
    import sys
    from contextlib import redirect_stdout

    from hostdev_core.registry.registry import Registry

    logging.getLogger("hostdev").setLevel(logging.CRITICAL)  # `hostdev plugins` has load errors
    with redirect_stdout(sys.stderr):  # plugins may print while they load
        registry = Registry.from_entry_points()
    uris = [uri for driver in registry.driver_table for uri in driver.uris]
    return OfPlugins(registry.rules_of_plugins(), uris)


def _answer(words: list[str]) -> int:
    """Print a candidate a line, with a tab and its help; nothing where anything at all is wrong."""
    try:
        shell, text, part, rules, uris = words
        line = split(text)
        emit("\n".join(_lines(shell, line, part, OfPlugins(rules.split(), uris.split()))))
    except Exception:  # it stands in the midst of somebody's line: the command itself will say it
        return 1
    return 0


def _lines(shell: str, line: Line, part: str, plugins: OfPlugins) -> Iterator[str]:
    found = complete(line, plugins)
    # bash breaks words at ":" and "=", and replaces the last part alone.
    typed = split(f"hostdev {part}").last if shell == "bash" else line.last
    start = len(line.last) - len(typed) if line.last.endswith(typed) else 0
    for word, about in found.candidates:
        shown = _quoted_for_bash(word[start:], line.quote) if shell == "bash" else word
        yield f"{shown}\t{clean(about)}"
    if found.paths:
        yield f"\t{found.paths}"


def _quoted_for_bash(word: str, quote: str) -> str:
    """Write a word as it goes on behind an open quote, or without one: bash inserts it as it is."""
    if quote == "'":
        return word.replace("'", "'\\''")
    return (_IN_DOUBLE_QUOTES if quote else _OUTSIDE).sub(r"\\\1", word)
