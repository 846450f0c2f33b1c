"""Types command lines into real shells, on terminals of their own, and tells what they ran."""

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hostdev_core.simulated import SimulatedHost

READY = "ready-for-you:"
# How each is started without its user's own settings, and what makes it load the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1={ready}; . {script}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -D -u; . {script}; PS1={ready}"),
    "fish": (
        ["fish", "--no-config", "-i"],
        "source {script}; function fish_prompt; echo -n {ready}; end",
    ),
}


class Shell:
    """A shell with hostdev's completion, for a simulated host.

    Its `hostdev` completes as the real one, and writes the words of any other command into a file.
    """

    def __init__(self, name: str, host: SimulatedHost, folder: Path) -> None:
        assert shutil.which(name), f"{name} is not installed: apt-get install {name}"
        self._ran = folder / "ran"
        script = folder / "script"
        program = folder / "bin" / "hostdev"
        program.parent.mkdir()
        python, ran = shlex.quote(sys.executable), shlex.quote(str(self._ran))
        program.write_text(
            f'#!/bin/sh\n[ "$1" != completion ] || exec {python} -m hostdev_core.cli "$@"\n'
            f"printf '%s\\n' \"$@\" > {ran}.new; mv {ran}.new {ran}\n"
        )
        program.chmod(0o755)
        written = subprocess.run([program, "completion", name], capture_output=True, check=True)
        script.write_bytes(written.stdout)
        words, begin = SHELLS[name]
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.environ |= {
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "HOSTDEV_SIMULATED_HOST": host.root,
                "HOME": str(folder),
                "TERM": "dumb" if name != "fish" else "xterm",
                "COLUMNS": "200",
            }
            os.chdir(folder)
            os.execvp(words[0], words)
        # Two words that the shell joins: the echo of this line is no prompt.
        self._write(begin.format(ready=READY.replace("-for-", "'-for-'"), script=script) + "\n")
        self._wait(READY)

    def run(self, typed: str) -> list[str]:
        """Type a line and Enter; the words that its command got."""
        self._ran.unlink(missing_ok=True)
        self._write(typed + "\n")
        self._wait("", until=self._ran)
        return self._ran.read_text().splitlines()

    def end(self) -> None:
        """Hang up, and wait for its end."""
        os.close(self._terminal)
        os.waitpid(self._pid, 0)

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait(self, words: str, *, until: Path | None = None) -> None:
        """Read until the words are shown, or the file is there; a shell may hang."""
        shown, limit = "", time.monotonic() + 30
        while time.monotonic() < limit:
            if (until is not None and until.exists()) or (words and words in shown):
                return
            if select.select([self._terminal], [], [], 0.05)[0]:
                with suppress(OSError):
                    shown += os.read(self._terminal, 65536).decode(errors="replace")
        raise AssertionError(f"the shell showed only: {shown}")
