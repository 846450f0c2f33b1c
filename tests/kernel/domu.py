"""PV domains in a Xen guest, with passed-through devices."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from .guest import Guest, wait_until


@contextmanager
def pv_domain(
    guest: Guest, name: str, pci: Sequence[str] = (), *, timeout: float = 240.0
) -> Generator[int]:
    """Create a running PV domain that was given the PCI devices, and yield its id; destroy it at the end.

    The devices must be assignable. The domain has found them ("DOMU ready" on its console, which is at
    console_log(name)) when the block begins.
    Raises AssertionError with xl's words when xl refuses.
    """
    devices = ", ".join(f'"{address}"' for address in pci)
    config = f"""
        name = "{name}"
        kernel = "/run/lab/vmlinux"
        ramdisk = "/run/lab/domu.cpio.gz"
        cmdline = "console=hvc0 domu.stay"
        memory = 128
        vcpus = 1
        pci = [{devices}]
    """
    guest.check(
        f"cat > /run/{name}.cfg <<'EOF'\n{config}\nEOF\nxl create /run/{name}.cfg", timeout=timeout
    )
    try:
        wait_until(guest, f"grep -q 'DOMU ready' {console_log(name)}", timeout=timeout)
        yield int(guest.check(f"xl domid {name}"))
    finally:
        guest.run(f"xl destroy {name}")


def console_log(name: str) -> str:
    """Where the guest has the console of the domain NAME."""
    return f"/var/log/xen/console/guest-{name}.log"
