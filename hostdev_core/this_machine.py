"""The host of a call that names none: this machine, or the simulated one of a test suite."""

import os

from hostdev_core.errors import InputError
from hostdev_core.host import Host
from hostdev_core.runtime.deadlines import Deadlines

SIMULATED_HOST = "HOSTDEV_SIMULATED_HOST"
# sudo(8), pkexec(1) and doas(1) set these for a program that they run as root for another user.
_RAISED_BY = ("SUDO_UID", "PKEXEC_UID", "DOAS_USER")
_AT_SECURE = 23  # getauxval(3): the kernel raised the rights of this program at its start


def this_machine(*, state_dir: str | None = None, deadlines: Deadlines | None = None) -> Host:
    """This machine; where `HOSTDEV_SIMULATED_HOST` names the directory of a simulated host, that one.

    So a program is tested that knows nothing of simulated hosts. The variable counts for nothing, with a
    warning, where the rights of the user who set it were raised (set-user-ID, file capabilities, sudo).
    """
    named = os.environ.get(SIMULATED_HOST)
    if named is None:
        return Host(state_dir=state_dir, deadlines=deadlines)
    if _are_raised():  # the user who set the variable must not choose the files that root writes
        _warn("%s counts for nothing, as the user's rights were raised", SIMULATED_HOST)
        return Host(state_dir=state_dir, deadlines=deadlines)
    if not named:
        raise InputError(f"{SIMULATED_HOST} is empty; name a simulated host, or unset it")
    if state_dir is not None:
        raise InputError(
            f"--state-dir is for this machine; the simulated one of {SIMULATED_HOST} has its own"
        )
    from hostdev_core.simulated.opened import OpenedMachine  # here: for tests and demonstrations

    try:
        return OpenedMachine(os.path.abspath(named), deadlines=deadlines)
    except InputError as error:
        raise InputError(f"{SIMULATED_HOST}={named}: {error}") from error


def tell_of_simulation(host: Host) -> None:
    """Warn, before a change, that the simulated host of the environment is changed, not this machine."""
    said = "%s is set: what is done is done to the simulated host %s, not to this machine"
    _warn(said, SIMULATED_HOST, host.root)


def _warn(text: str, *words: str) -> None:
    import logging  # here: `hostdev list` should not pay for it

    logging.getLogger("hostdev").warning(text, *words)


def _are_raised() -> bool:
    """Tell whether this process has rights beyond those of the user that started it."""
    if (os.getuid(), os.getgid()) != (os.geteuid(), os.getegid()):
        return True
    if os.geteuid() == 0 and any(name in os.environ for name in _RAISED_BY):
        return True
    # File capabilities and security modules change no user id: the C library alone knows of those.
    import ctypes

    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return False
    getauxval.restype = ctypes.c_ulong
    return bool(getauxval(_AT_SECURE))
