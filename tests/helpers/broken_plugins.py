"""Plugins that are broken, installed as pip does, and what `hostdev plugins` says of them."""

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, ask, clean_environment, run, with_installed
from tests.sample import NIC

HEAD = "import sys\nfrom hostdev_core import HostdevDriver, LocalHostdevDriver, Refusal, hookimpl\n"
DRIVER = """
class Mine(LocalHostdevDriver):
    name = {name}
    uri_schemes = {schemes}
    stubs = {stubs}

@hookimpl
def hostdev_drivers():
    return [Mine()]
"""


class Broken(NamedTuple):
    """The module, what is said of it, and the line that is named, if one is."""

    code: str
    said: str
    line: int | None = None


def driver(name: str = "'mine'", schemes: str = "('mine',)", stubs: str = "('vfio-pci',)") -> str:
    return HEAD + DRIVER.format(name=name, schemes=schemes, stubs=stubs)


def hook(text: str, mark: str = "@hookimpl") -> str:
    return f"{HEAD}{mark}\n{text}\n"


LOADING = {
    "import error": Broken("\nimport no_such_module_at_all\n", "no_such_module_at_all", 2),
    "syntax error": Broken("x = 1\n\nif x\n", "SyntaxError: expected ':'", 3),
    "not text": Broken("\x00", "null bytes"),
    "exception at import": Broken("\n1 / 0\n", "ZeroDivisionError", 2),
    "several lines": Broken("raise ValueError('one\\n\\x1b[31mtwo')\n", "ValueError: one", 1),
    "sys.exit at import": Broken("import sys\nsys.exit(0)\n", "SystemExit: 0", 2),
    "BaseException at import": Broken(
        "class Odd(BaseException): pass\nraise Odd('odd')\n", "Odd: odd", 2
    ),
    "endless recursion": Broken("def f(): f()\nf()\n", "RecursionError", 1),
    "unknown argument": Broken(hook("def hostdev_check(conn, nonsense): ..."), "nonsense"),
    "misspelt hook": Broken(
        hook("def hostdev_befor_prepare(conn): ..."), "hostdev_befor_prepare is no hook"
    ),
    "hookwrapper": Broken(
        hook("def hostdev_check(conn):\n    yield", "@hookimpl(hookwrapper=True)"), "is a wrapper"
    ),
    "wrapper": Broken(
        hook("def hostdev_check(conn):\n    yield", "@hookimpl(wrapper=True)"), "is a wrapper"
    ),
    "without the mark": Broken(hook("def hostdev_check(conn): ...", ""), "put @hookimpl before it"),
    "drivers raises": Broken(hook("def hostdev_drivers():\n    1 / 0"), "ZeroDivisionError", 5),
    "drivers exits": Broken(hook("def hostdev_drivers():\n    sys.exit(0)"), "SystemExit", 5),
    "drivers returns nothing": Broken(hook("def hostdev_drivers(): ..."), "NoneType"),
    "drivers returns a class": Broken(
        hook("def hostdev_drivers():\n    return [LocalHostdevDriver]"), "is no HostdevDriver"
    ),
    "abstract driver": Broken(
        hook("def hostdev_drivers():\n    return [HostdevDriver()]"), "abstract", 5
    ),
    "another's scheme": Broken(driver(schemes="('qemu',)"), "both claim URI scheme 'qemu'"),
    "another's name": Broken(driver(name="'qemu'"), "a name that is taken"),
    "schemes that are a text": Broken(driver(schemes="'mine'"), "wanted a tuple of texts"),
    "scheme in capitals": Broken(driver(schemes="('MINE',)"), "in lower case"),
    "no name": Broken(driver(name="None"), "has the name None"),
    "no stubs": Broken(driver(stubs="()"), "has stubs (); wanted a tuple of kernel drivers"),
    "stubs that are a text": Broken(driver(stubs="'vfio-pci'"), "has stubs 'vfio-pci'"),
    "stubs that are none": Broken(driver(stubs="('vfio-pci', 7)"), "has stubs ('vfio-pci', 7)"),
}
HOOKS = {
    "drivers": "",
    "state_drivers": "host",
    "connection_opened": "conn",
    "connection_closing": "conn",
    "check": "conn, devices",
    "before_prepare": "conn, domain, devices",
    "after_prepare": "domain",
    "prepare_failed": "error",
    "before_reattach": "devices",
    "after_reattach": "errors",
}
RAISED = [
    "1 / 0",
    "sys.exit(0)",
    "raise GeneratorExit",
    "raise BaseExceptionGroup('', [SystemExit()])",
]
METHODS = {
    "open": "conn",
    "choose_stub": "host, device",
    "accepts_stub": "kernel_driver",
    "check_device": "host, device",
    "holders": "host, device",
    "extra_steps": "host, device",
    "node": "host, device",
    "arguments": "device, node",
    "host_for": "uri",
}
REFUSES = {"state_drivers", "connection_opened", "check", "before_prepare", "after_prepare"}
OTHERS = {"drivers", "prepare_failed"}


def each_raises(names: Iterable[str]) -> list[tuple[str, str]]:
    """What each of these raises: one after the other of what there is, as all are called in one place."""
    return [*zip(names, cycle(RAISED))]


def few(names: Iterable[Any], first: int) -> list[Any]:
    """So many of them in `make test`; the others are long."""
    quick, rest = [*names][:first], [*names][first:]
    parts = (name if isinstance(name, tuple) else (name,) for name in rest)
    return [*quick, *(pytest.param(*part, marks=pytest.mark.long) for part in parts)]


def install(
    folder: Path, code: str, value: str = "guarding", name: bytes = b"guarding-dist"
) -> dict[str, str]:
    """Install a plugin as pip does; the environment in which it is found."""
    folder.mkdir()
    (folder / "guarding.py").write_text(code)
    info = folder / "guarding_dist-1.5.dist-info"
    info.mkdir()
    metadata = b"Metadata-Version: 2.1\nName: %s\nVersion: 1.5\n" % name
    (info / "METADATA").write_bytes(metadata)
    (info / "entry_points.txt").write_text(f"[hostdev]\nsentry = {value}\n")
    return clean_environment(PYTHONPATH=with_installed(folder))


def lend_and_take_back(host: SimulatedHost, env: dict[str, str]) -> None:
    """Another backend works, and nothing is left."""
    before = host.snapshot()
    lent = run(*QEMU, "prepare", "vm1", NIC, host=host, env=env)
    assert lent.returncode == 0, lent.stderr
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    back = run(*QEMU, "reattach", "vm1", host=host, env=env)
    assert back.returncode == 0, back.stderr
    assert host.snapshot() == before
    assert host.ledger.records() == []


def told(env: dict[str, str]) -> dict[str, Any]:
    """What `hostdev plugins` says of the broken one, as text and as JSON."""
    done = run("plugins", env=env)
    assert done.returncode == 1
    assert "qemu://" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    (error,) = ask("plugins", env=env)["errors"]
    assert isinstance(error, dict)
    assert " ".join(error["error"].replace("\x1b", "").split()) in done.stderr
    return error
