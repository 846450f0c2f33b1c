"""The nodes that guests open: there before a device counts as lent."""

import time
from collections.abc import Callable

from hostdev_core.assignment import Assignment
from hostdev_core.errors import NotAssignableError
from hostdev_core.host import Host

_GLANCE = 1.0  # seconds; whoever waits sees by then that nobody wants it any more


def wait_for_node(host: Host, assignment: Assignment) -> None:
    """Wait until the node that an assignment names is there; one that is costs one look.

    NotAssignableError when it does not come within the deadline of an attribute.
    """
    device, node = assignment.device, assignment.node
    if device is not None and node is not None:
        await_node(host, device.name, node)


def await_node(
    host: Host,
    device: str,
    node: str,
    check: Callable[[], object] = lambda: None,
    number: str | None = None,
) -> None:
    """The same for a path that a device's guest opens; what `check` raises ends it within a second.

    The node of another device than the one of this `number` is none.
    """
    if host.has_node(node, number):
        return
    seconds = host.deadlines.attribute
    end = time.monotonic() + seconds
    while not host.udev.wait_for(node, max(0.0, min(_GLANCE, end - time.monotonic())), number):
        check()
        if time.monotonic() >= end:
            instead = ", and another device's stands there" if host.has_node(node) else ""
            raise NotAssignableError(
                f"{device} has no node {node}, which its guest opens: it has not appeared within"
                f" {seconds:g} s{instead}; see what makes /dev here (devtmpfs, udev, a container's own)",
                device=device,
                rule="no-node",
                evidence=(node,),
            )
