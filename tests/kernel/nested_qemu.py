"""What opens a lent device in the guest: a real QEMU, and a process that merely holds a VFIO device."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .guest import Guest
from .guest_command import GuestError

_numbers = itertools.count(1)


class NestedQemu:
    """A QEMU that runs in GUEST (its system's own), paused, with the devices it is lent.

    ARGUMENTS are what an Assignment gives, for instance ["-device", "vfio-pci,host=0000:01:00.0"].
    A context manager that ends it. The guest needs 1.5 GB, and the bare kernel.
    Raises GuestError with QEMU's own words when it refuses to start.
    """

    def __init__(self, guest: Guest, arguments: Sequence[str], *, timeout: float = 120.0) -> None:
        self._guest = guest
        self._timeout = timeout
        self._requests = itertools.count(1)
        self._fifo = f"/run/nested-qemu-{next(_numbers)}"
        qemu = [
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "64",
            "-nodefaults",
            "-nographic",
            "-S",
        ]
        qemu += ["-qmp", "stdio", *arguments]
        # Open for reading and writing, so that it never sees an end of file between two requests; and
        # before it has its name, so that no request is lost that is written before QEMU is there.
        fresh = f"{self._fifo}.fresh"
        pipe = (
            f"rm -f {self._fifo} {fresh}; mkfifo {fresh}; exec 0<>{fresh}; mv {fresh} {self._fifo}"
        )
        self._command = guest.start(f"{pipe}; echo $$; exec {shlex.join(qemu)}")
        try:
            self.execute("qmp_capabilities")
            self.pid = int(self._command.first_line())
        except BaseException:
            self._command.kill()
            self._command.wait()
            raise

    def execute(self, request: str, **arguments: Any) -> Any:
        """Make a QMP request and return its answer; GuestError when that is an error, or QEMU has ended."""
        number = next(self._requests)
        line = json.dumps({"execute": request, "arguments": arguments, "id": number})
        end = time.monotonic() + self._timeout
        self._guest.check(
            f"until [ -p {self._fifo} ]; do sleep 0.1; done; echo {shlex.quote(line)} 1<>{self._fifo}"
        )
        while time.monotonic() < end:
            for answer in self._answers():
                if answer.get("id") == number:
                    return self._value(request, answer)
            self._fail_if_ended(request)
            time.sleep(0.1)
        raise GuestError(
            f"the nested QEMU did not answer {request} within {self._timeout:g} s: {self._command.stderr}"
        )

    def pci_devices(self) -> list[dict[str, Any]]:
        """The devices QEMU's guest sees, bridges' children included, as query-pci describes them."""
        found: list[dict[str, Any]] = []
        todo = [device for bus in self.execute("query-pci") for device in bus["devices"]]
        while todo:
            device = todo.pop()
            found.append(device)
            todo += device.get("pci_bridge", {}).get("devices", [])
        return found

    def close(self, *, timeout: float = 60.0) -> None:
        """End it, and return when it has let go of its devices. Twice is harmless."""
        if self._command.running:
            self._guest.run(f"kill {self.pid}")
        self._command.wait(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> Iterator[dict[str, Any]]:
        """The complete lines of its output that are QMP messages."""
        for line in self._command.stdout.split("\n")[:-1]:
            if line.startswith("{"):
                yield json.loads(line)

    def _value(self, request: str, answer: dict[str, Any]) -> Any:
        if "error" in answer:
            raise GuestError(f"the nested QEMU: {request}: {answer['error']['desc']}")
        return answer["return"]

    def _fail_if_ended(self, request: str) -> None:
        if not self._command.running:
            done = self._command.wait()
            raise GuestError(
                f"the nested QEMU has ended with {done.returncode} before {request}: {done.stderr.strip()}"
            )


@contextmanager
def vfio_holder(
    guest: Guest, address: str, *, alone: bool = False, timeout: float = 60.0
) -> Generator[int]:
    """Hold the VFIO device at ADDRESS open in another process, and yield its pid in the guest.

    ALONE: that process has the descriptor of the device only, not that of its group.

    It has no eventfd for the kernel's request to let go: an unbind waits, unkillably, until the end of
    the block.
    The device must be on vfio-pci.
    """
    script = Path(__file__).resolve().with_name("hold_vfio.py")
    words = [guest.system.python, str(script), address, *(["alone"] if alone else [])]
    command = guest.start(shlex.join(words))
    try:
        yield int(command.first_line(timeout=timeout).removeprefix("held "))
    finally:
        command.kill()
        command.wait()
