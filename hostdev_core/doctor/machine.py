"""The rest of the machine: rights, memory, security modules, sleep.

Sources: proc(5) (limits, status, meminfo, hidepid), capabilities(7), Documentation/ABI/testing/sysfs-power;
SELinux' own file system, security/selinux/selinuxfs.c; AppArmor's parameter, security/apparmor/lsm.c.
"""

import re
from collections.abc import Iterator

from hostdev_core.doctor.files import said, told
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.errors import NotPermittedError
from hostdev_core.host import Host

NOT_ROOT = Code(
    "not-root",
    Level.NOTE,
    "Not all can be seen without root",
    "`sudo hostdev doctor`",
)
MEMLOCK = Code(
    "memlock-limited",
    Level.NOTE,
    "A QEMU that is started from here may lock little memory, and VFIO locks all of a guest's",
    "`echo '@kvm - memlock unlimited' >/etc/security/limits.d/vfio.conf`, for a service"
    " `LimitMEMLOCK=infinity`; libvirt sets it by itself",
)
HUGEPAGES = Code("hugepages", Level.OK, "Hugepages, as they are reserved")
USED_UP = Code(
    "hugepages-used-up",
    Level.NOTE,
    "All reserved hugepages are in use: a guest that wants some does not start",
    "`sysctl vm.nr_hugepages=NUMBER`, more than now",
)
HIDEPID = Code(
    "hidepid",
    Level.NOTE,
    "/proc hides the processes of others: who has a device cannot be named to users but root",
    "run hostdev as root, or add `gid=GROUP` to the mount of /proc, and the user to that group",
)
SELINUX = Code(
    "selinux-enforcing",
    Level.NOTE,
    "SELinux is enforcing, and hostdev labels no node: a confined QEMU may be refused its device",
    "`ausearch -m avc -ts recent` shows refusals; libvirt labels what it starts",
)
APPARMOR = Code(
    "apparmor-enabled",
    Level.NOTE,
    "AppArmor is enabled: a QEMU with a profile may be refused its device",
    "`journalctl -k -g apparmor=.DENIED` shows refusals; libvirt's profiles have what it lends",
)
SUSPEND = Code(
    "suspend",
    Level.NOTE,
    "This machine can be suspended: a lent device comes back from that without its guest's settings",
    "`systemctl mask sleep.target`, on a host of guests",
)

_IPC_LOCK = 14  # CAP_IPC_LOCK: no limit counts (mlock(2))
_LIMIT = re.compile(r"^Max locked memory +(\S+)", re.MULTILINE)
_CAPABILITIES = re.compile(r"^CapEff:\s*([0-9a-fA-F]{1,16})$", re.MULTILINE)
_PAGES = re.compile(r"^(HugePages_(?:Total|Free)|Hugepagesize): *([0-9]{1,18})", re.MULTILINE)
_HIDEPID = re.compile(r"\bhidepid=(?:[124]|noaccess|invisible|ptraceable)\b")
_SLEEP = "etc/systemd/system/sleep.target"


def check_user(host: Host) -> Iterator[Finding]:
    """Who looks."""
    try:
        host.check_permitted()
    except NotPermittedError as error:
        yield NOT_ROOT.found(str(error))


def check_memlock(host: Host) -> Iterator[Finding]:
    """The limit of locked memory, where it counts."""
    limit = _LIMIT.search(host.read_text("proc/self/limits") or "")
    rights = _CAPABILITIES.search(host.read_text("proc/self/status") or "")
    if rights and int(rights[1], 16) >> _IPC_LOCK & 1:
        return
    if limit and limit[1].isdecimal():
        yield MEMLOCK.found(said(host, "proc/self/limits", f"Max locked memory {limit[1]} bytes"))


def check_hugepages(host: Host) -> Iterator[Finding]:
    """Hugepages of the usual size."""
    found = {key: int(value) for key, value in _PAGES.findall(host.read_text("proc/meminfo") or "")}
    if "HugePages_Total" not in found:
        return
    total, free = found["HugePages_Total"], found.get("HugePages_Free", 0)
    size = found.get("Hugepagesize", 0)
    evidence = said(host, "proc/meminfo", f"{free} of {total} free, {size} kB each")
    yield (USED_UP if total and not free else HUGEPAGES).found(evidence)


def check_proc(host: Host) -> Iterator[Finding]:
    """Whether /proc hides processes: the last mount there counts (proc_pid_mountinfo(5))."""
    rows = [line.split() for line in (host.read_text("proc/self/mountinfo") or "").splitlines()]
    last = next((row for row in reversed(rows) if row[4:5] == ["/proc"]), list[str]())
    if any(_HIDEPID.search(word) for word in last[5:]):
        yield HIDEPID.found(said(host, "proc/self/mountinfo", " ".join(last[4:])))


def check_security(host: Host) -> Iterator[Finding]:
    """Security modules that may refuse a device to QEMU."""
    if host.sysfs.read("fs/selinux/enforce") == "1":
        yield SELINUX.found(told(host, "fs/selinux/enforce", "1"))
    if host.sysfs.read("module/apparmor/parameters/enabled") == "Y":
        yield APPARMOR.found(told(host, "module/apparmor/parameters/enabled", "Y"))


def check_sleep(host: Host) -> Iterator[Finding]:
    """Whether the machine sleeps: systemd's target is masked by a link to /dev/null, or an empty file."""
    ways = {"mem", "disk"} & {*(host.sysfs.read("power/state") or "").split()}
    if ways and host.read_text(_SLEEP) != "":
        yield SUSPEND.found(told(host, "power/state", " ".join(sorted(ways))))


TOPIC = Topic(
    "The machine",
    (NOT_ROOT, MEMLOCK, HUGEPAGES, USED_UP, HIDEPID, SELINUX, APPARMOR, SUSPEND),
    (check_user, check_memlock, check_hugepages, check_proc, check_security, check_sleep),
)
