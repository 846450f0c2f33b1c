"""A program's call that a worker makes."""

from hostdev_core import (
    Domain,
)
from tests.helpers.processes import connect
from tests.sample import DISK, NIC


def lend_apart(root: str) -> None:
    with connect(root) as conn:
        conn.worker = True
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
