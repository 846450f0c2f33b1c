"""The real machine that the tests run on, read-only."""

import os

from hostdev_core import Host, open_connection
from hostdev_guard.check import refusals
from hostdev_guard.rules import REASONS


def test_every_device_of_this_machine_can_be_asked_about() -> None:
    with open_connection("qemu:///system", read_only=True) as conn:
        devices = conn.list_devices()
    answers = refusals(Host(), devices)
    assert {answer.device for answer in answers} <= {device.name for device in devices}
    for answer in answers:
        assert answer.rule in REASONS
        assert all(line.startswith("and ") or answer.device in line for line in answer.evidence)


def test_the_disk_of_the_root_is_refused_where_it_is_one() -> None:
    status = os.stat("/")
    number = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    path = os.path.realpath(f"/sys/dev/block/{number}")
    with open_connection("qemu:///system", read_only=True) as conn:
        devices = conn.list_devices()
    above = [device for device in devices if f"/{device.name}/" in path]
    rules = {(answer.device, answer.rule) for answer in refusals(Host(), devices)}
    assert {(device.name, "root-filesystem") for device in above} <= rules
