"""Guest: one emulated machine, bare kernel or Xen's dom0, that runs commands for the tests."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import lab
from .guest_command import COMMAND_TIMEOUT, Command, GuestError
from .machines import qemu_command

BOOT_TIMEOUT = 300.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Guest:
    """A booted machine; a context manager that ends it.

    FOLDER (fresh, of this guest alone) receives console, qemu.log and the output of each command.
    DEVICES are further QEMU arguments. SYSTEM is what it boots, and whose QEMU emulates it; the / of that
    system, the machine's own for Debian 12, is the guest's, below an overlay: the checkout and its
    environment stand at the same paths, and what the guest writes is gone at the end. What changes outside
    after the boot may be read stale.
    It must be made by a thread that outlives it, best the main thread: QEMU is killed when its maker ends.
    Raises GuestError when it does not come up within BOOT_TIMEOUT seconds.
    """

    def __init__(
        self,
        folder: Path,
        devices: Sequence[str] = (),
        *,
        system: lab.System = lab.DEBIAN12,
        xen: bool = False,
        memory: int = 1024,
        cpus: int = 1,
        iommu: str | None = None,
    ) -> None:
        self.folder = folder
        self.system = system
        self.xen = xen
        self._changed = threading.Condition()
        self._codes: dict[int, int] = {}
        self._last = 0
        self._ready = self._gone = False
        self._monitor_lock = threading.Lock()
        files = lab.fill(system)
        self._write_session()
        machine = qemu_command(
            files, folder, root=system.root, xen=xen, memory=memory, cpus=cpus, iommu=iommu
        )
        self._boot([*machine, *devices])

    def run(
        self, command: str, *, timeout: float = COMMAND_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a bash script as root, wait for its end, and return exit code (unchecked) and output.

        After TIMEOUT seconds it is killed and subprocess.TimeoutExpired raised.
        """
        handle = self.start(command)
        try:
            return handle.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            handle.kill()
            raise

    def check(self, command: str, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """As run, but return the standard output, and fail on an exit code other than 0 (AssertionError)."""
        done = self.run(command, timeout=timeout)
        assert done.returncode == 0, (
            f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self._where()}"
        )
        return done.stdout

    def start(self, command: str) -> Command:
        """Start a bash script as root and return at once; any number of them run side by side."""
        with self._changed:
            self._last += 1
            number = self._last
        (self.folder / f"{number}.cmd").write_text(command + "\n")
        self.send(f"run {number}")
        return Command(self, number, command)

    @property
    def commands(self) -> int:
        """How many commands have been started so far."""
        return self._last

    def hostdev(
        self, *args: str, timeout: float = COMMAND_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run the `hostdev` command of the checkout."""
        return self.run(
            shlex.join([self.system.python, "-m", "hostdev_core.cli", *args]), timeout=timeout
        )

    def python(
        self, source: str, *args: str, timeout: float = COMMAND_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python script with the checkout and its environment; ARGS are its sys.argv[1:]."""
        return self.run(self.python_command(source, *args), timeout=timeout)

    def python_command(self, source: str, *args: str) -> str:
        """The command that runs a Python script, for `start`."""
        return shlex.join([self.system.python, "-c", source, *args])

    def monitor(self, command: str) -> str:
        """Give QEMU's monitor a command (device_add, device_del, info ...) and return what it printed.

        It answers at once: the guest's kernel takes seconds over a hot-plug.
        """
        request = {"execute": "human-monitor-command", "arguments": {"command-line": command}}
        with self._monitor_lock:
            return str(self._qmp(request))

    def dmesg(self) -> str:
        """The kernel's log."""
        return self.check("dmesg")

    def close(self) -> None:
        """End the machine: by its own power-off, else by force. Twice is harmless. The logs stay."""
        if not self._gone:
            try:
                self.send("off")
                self._process.wait(15)
            except (GuestError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for thing in (self._answers, self._control, self._monitor):
            thing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def exit_code(self, number: int, *, timeout: float) -> int | None:
        """The exit code of command NUMBER; None when it has not ended within TIMEOUT seconds."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._codes or self._gone, timeout)
            if number not in self._codes and self._gone:
                raise GuestError(
                    f"the guest has ended while command {number} was running; {self._where()}"
                )
            return self._codes.get(number)

    def send(self, line: str) -> None:
        """Send a line to the guest's root-init."""
        try:
            self._control.sendall(f"{line}\n".encode())
        except OSError as error:
            raise GuestError(
                f"the guest does not take {line!r}: {error}; {self._where()}"
            ) from error

    def _where(self) -> str:
        return f"console, qemu.log, qemu-command and the commands' output: {self.folder}"

    def _write_session(self) -> None:
        """Write what root-init reads: the paths to show and the environment of the commands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "visible").write_text(
            "".join(f"{path}\n" for path in lab.visible_paths(self.system))
        )
        sources = ":".join(str(path) for path in lab.import_paths(self.system))
        environment = {
            "PATH": f"{Path(self.system.python).parent}:{PATH}",
            "PYTHONPATH": sources,
            "PYTHONPYCACHEPREFIX": str(lab.bytecode_dir()),
            "PYTHONUNBUFFERED": "1",
            "HOSTDEV_DISABLE_PLUGINS": os.environ[
                "HOSTDEV_DISABLE_PLUGINS"
            ],  # what is installed beside it is no matter here
        }
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
        (self.folder / "environment").write_text("".join(lines))

    def _boot(self, command: list[str]) -> None:
        """Start QEMU with both sockets inherited (no path, so no collision) and wait for "ready"."""
        self._control, control = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        self._monitor.settimeout(60)
        self._answers = self._monitor.makefile("r")
        command += ["-chardev", f"socket,id=control,fd={control.fileno()}"]
        command += [
            "-chardev",
            f"socket,id=monitor,fd={monitor.fileno()}",
            "-mon",
            "chardev=monitor,mode=control",
        ]
        (self.folder / "qemu-command").write_text(shlex.join(command) + "\n")
        # It dies with us even if we are killed; of its own session, so that Ctrl-C leaves it to close().
        command = ["setpriv", "--pdeathsig", "KILL", *self.system.outside(command)]
        with control, monitor, (self.folder / "qemu.log").open("w") as log:
            fds = (control.fileno(), monitor.fileno())
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read_answers, name="guest", daemon=True)
        self._reader.start()
        try:
            self._wait_ready()
            self._answers.readline()
            self._qmp({"execute": "qmp_capabilities"})
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def _wait_ready(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._gone, BOOT_TIMEOUT)
        if not self._ready or self._gone:
            log = (self.folder / "qemu.log").read_text(errors="replace")[-2000:]
            what = "ended while it booted" if self._gone else f"is not up after {BOOT_TIMEOUT:g} s"
            raise GuestError(f"the guest {what}; {self._where()}\n{log}")

    def _read_answers(self) -> None:
        """The thread that notes what root-init says, until QEMU closes the socket."""
        with self._control.makefile("r", errors="replace") as lines:
            try:
                for line in lines:
                    self._note(line.split())
            except OSError:
                pass
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _note(self, words: list[str]) -> None:
        with self._changed:
            if words == ["ready"]:
                self._ready = True
            elif len(words) == 2:
                self._codes[int(words[0])] = int(words[1])
            self._changed.notify_all()

    def _qmp(self, request: dict[str, Any]) -> object:
        self._monitor.sendall(json.dumps(request).encode() + b"\n")
        for line in self._answers:
            answer = json.loads(line)
            if "error" in answer:
                raise GuestError(f"{request}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise GuestError(f"QEMU's monitor is gone; {self._where()}")


def wait_until(guest: Guest, test: str, *, timeout: float = COMMAND_TIMEOUT) -> None:
    """Wait until the shell TEST succeeds in the guest; AssertionError after TIMEOUT seconds."""
    end = time.monotonic() + timeout
    while guest.run(test).returncode:
        assert time.monotonic() < end, (
            f"not within {timeout:g} s: {test}; see {os.fspath(guest.folder)}"
        )
