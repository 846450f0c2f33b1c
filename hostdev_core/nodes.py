"""The nodes that guests open: there before a device counts as lent."""

import os

from hostdev_core.assignment import Assignment
from hostdev_core.errors import NotAssignableError
from hostdev_core.host import Host


def wait_for_node(host: Host, assignment: Assignment) -> None:
    """Wait until the node that an assignment names is there; one that is costs one look.

    NotAssignableError when it does not come within the deadline of an attribute.
    """
    device, node = assignment.device, assignment.node
    if device is None or node is None or os.path.exists(node):
        return
    seconds = host.deadlines.attribute
    if not host.udev.wait_for(node, seconds):
        raise NotAssignableError(
            f"{device.name} has no node {node}, which its guest opens: it has not appeared within"
            f" {seconds:g} s; see what makes /dev here (devtmpfs, udev, a container's own)",
            device=device.name,
            rule="no-node",
            evidence=(node,),
        )
