"""One thread of calls at random; whatever is neither done nor refused as documented is a loss."""

import errno
import random
import re
import time
import traceback
from contextlib import suppress

from hostdev_core import (
    Connection,
    DeviceInUseError,
    DeviceNotFoundError,
    Domain,
    HostdevError,
    KernelError,
    NotAssignableError,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    StateError,
    USBHostdev,
)
from hostdev_core.simulated import SimulatedHost
from tests.races.log import Log
from tests.races.machine import Shelf

SHARED = ("shared1", "shared2", "shared3")
REFUSALS = (DeviceInUseError, NotAssignableError, DeviceNotFoundError)
# The world kept changing under the call, which says so instead of trying for ever.
GAVE_UP = re.compile(r"changed under \d attempts|was changed by somebody else meanwhile")
WORKER = re.compile(r"the worker \(pid (\d+)\) ended without an answer")
HOT = 24  # half of all calls are about these devices, however many there are
WEIGHTS = {
    "prepare": 30,
    "reattach": 22,
    "reattach_one": 6,
    "detach": 10,
    "reattach_device": 8,
    "reset": 3,
    "forget": 2,
    "plan": 6,
    "look": 6,
    "recover": 3,
    "run_guest": 4,
}


class Caller:
    """Calls of one thread, through connections of two drivers, for its own domain and shared ones.

    Nobody else gives back what its own domain has: what was lent to that stays so until then.
    """

    def __init__(
        self, conns: list[Connection], host: SimulatedHost, shelf: Shelf, own: str, log: Log
    ) -> None:
        self._conns = conns
        self._host = host
        self._shelf = shelf
        self._own = own
        self._log = log
        self._random = random.Random(own)
        self._mine: dict[str, set[str]] = {conn.uri: set() for conn in conns}

    def run(self, until: float) -> None:
        """Call until that time of day."""
        while time.time() < until:
            act = self._random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
            try:
                self._log.note(act, self._call(act, self._random.choice(self._conns)))
            except Exception:
                self._log.loss(f"{act} of {self._own}: {traceback.format_exc()}")

    def _call(self, act: str, conn: Connection) -> str:
        try:
            getattr(self, f"_{act}")(conn)
        except HostdevError as error:
            return self._judge(act, error)
        return "done"

    def _judge(self, act: str, error: HostdevError) -> str:
        """What a refusal counts as; raised again when it is none that is documented."""
        if isinstance(error, StateError) and GAVE_UP.search(str(error)):
            return "gave up"
        lost = WORKER.search(str(error))
        if lost and self._log.was_killed(int(lost[1])):
            return "killed"
        ends = error.exceptions if isinstance(error, ReattachError) else (error,)
        if act != "look" and all(isinstance(e, REFUSALS) or self._has_flapped(e) for e in ends):
            return "refused"
        raise error

    def _has_flapped(self, error: Exception) -> bool:
        """Whether it is about a card that is pulled out and plugged in."""
        if not isinstance(error, KernelError | StateError):
            return False
        if isinstance(error, KernelError) and error.errno == errno.EBUSY:
            return False
        return any(address in str(error) for address in self._shelf.flapping)

    def _prepare(self, conn: Connection) -> None:
        domain, hostdevs = self._domain(), self._some()
        flags = PrepareFlags.NONE
        for flag in (PrepareFlags.WHOLE_GROUP, PrepareFlags.ALLOW_SAME_OWNER):
            if self._random.random() < 0.4:
                flags |= flag
        conn.prepare_hostdevs(Domain(domain, hostdevs), flags)
        if domain == self._own:
            self._mine[conn.uri] |= {str(h) for h in hostdevs if isinstance(h, PCIHostdev)}

    def _reattach(self, conn: Connection) -> None:
        domain = self._domain()
        if domain != self._own:
            conn.reattach_hostdevs(domain)
            return
        mine, self._mine[conn.uri] = self._mine[conn.uri], set()
        try:
            home = conn.reattach_hostdevs(domain)
        except ReattachError:
            left = conn.get_domain_active_pci_hostdev_list(domain)
            self._mine[conn.uri] = mine & {device.name for device in left}
            raise
        # A card that was pulled out has no claim to its place: somebody else's there has ended its record.
        if lost := mine - {*home, *self._shelf.flapping}:
            raise AssertionError(f"{domain} had {sorted(lost)}; given back were {home}")

    def _reattach_one(self, conn: Connection) -> None:
        hostdev, domain = self._some()[0], self._random.choice(SHARED)
        if isinstance(hostdev, PCIHostdev):
            conn.reattach_pci_hostdevs(domain, [hostdev])
        else:
            conn.reattach_usb_hostdevs(domain, [hostdev])

    def _detach(self, conn: Connection) -> None:
        conn.detach_device(self._pick(self._shelf.pci + self._shelf.flapping))

    def _reattach_device(self, conn: Connection) -> None:
        conn.reattach_device(self._pick(self._shelf.pci + self._shelf.flapping))

    def _reset(self, conn: Connection) -> None:
        conn.reset_device(self._pick(self._shelf.pci))

    def _forget(self, conn: Connection) -> None:
        """A USB device: nothing is done to one, so that it is as found without its record, too."""
        conn.forget_device(self._pick(self._shelf.usb))

    def _plan(self, conn: Connection) -> None:
        conn.plan(Domain(self._domain(), self._some()))

    def _recover(self, conn: Connection) -> None:
        conn.recover()

    def _look(self, conn: Connection) -> None:
        """Nothing that only looks is ever refused, or tells of a change that nobody made."""
        conn.list_devices()
        for drift in conn.reload():
            if drift.kind == "pci" and drift.address not in self._shelf.flapping:
                raise AssertionError(f"nobody did that: {drift}")

    def _run_guest(self, conn: Connection) -> None:
        """Hold a device for a moment that is lent to somebody, as far as one may."""
        lent = conn.get_active_pci_hostdev_list()
        if lent:
            with suppress(OSError), self._host.hold(self._random.choice(lent).name):
                time.sleep(self._random.random() / 50)

    def _domain(self) -> str:
        return self._random.choice((self._own, self._random.choice(SHARED)))

    def _some(self) -> list[PCIHostdev | USBHostdev]:
        """One device, with others of its slot or of anywhere, in any order."""
        names = {self._pick(self._shelf.pci + self._shelf.flapping + self._shelf.usb)}
        slot = f"{min(names).rpartition('.')[0]}."
        if self._random.random() < 0.4:
            names |= {name for name in self._shelf.pci if name.startswith(slot)}
        while self._random.random() < 0.3:
            names.add(self._pick(self._shelf.pci))
        return [self._hostdev(name) for name in self._random.sample(sorted(names), len(names))]

    def _pick(self, names: list[str]) -> str:
        return self._random.choice(names[:HOT] if self._random.random() < 0.5 else names)

    def _hostdev(self, name: str) -> PCIHostdev | USBHostdev:
        if name in self._shelf.usb:
            return USBHostdev(port=name)
        return PCIHostdev(address=name, managed=self._random.random() < 0.85)
