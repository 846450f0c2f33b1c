"""The rules a claim is decided by, over records alone."""

import pytest

from hostdev_core import (
    GroupNotViableError,
    NotAssignableError,
    PCIAddress,
    PCIDevice,
    PCIHostdev,
    UsedBy,
)
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.model.device import PCIDetails
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import check_together, find_conflict, is_orphaned
from hostdev_core.planning.pci_rules import check_functions, check_managed, group_blockers

pytestmark = pytest.mark.quick_cases

VM1 = UsedBy("vm1", "qemu", "qemu:///system")
VM2 = UsedBy("vm2", "qemu", "qemu:///system")
FIRST, SECOND = "0000:01:00.0", "0000:01:00.1"


def record(address: str, owner: UsedBy | None = VM1, **more: object) -> Record:
    values: dict[str, object] = {"phase": Phase.ACTIVE} | more
    kind = "usb" if address[1] == "-" else "pci"
    return Record(kind, address, backend="qemu", owner=owner, **values)  # type: ignore[arg-type]


def wanted(address: str, owner: UsedBy | None = VM2, **more: object) -> Record:
    return record(address, owner, phase=Phase.PREPARING, op="mine", **more)


@pytest.mark.parametrize(
    ("want", "have", "conflict"),
    [
        (wanted(FIRST), record(FIRST), True),
        (wanted(FIRST, VM1), record(FIRST), True),
        (wanted(FIRST), record(SECOND), False),
        (wanted(FIRST, listed=True), record(FIRST, None, phase=Phase.INACTIVE), False),
        (wanted(FIRST), record(FIRST, None, phase=Phase.INACTIVE), True),
        (wanted(FIRST, listed=True), record(FIRST, None, phase=Phase.INACTIVE, op="x"), True),
        (wanted(FIRST, group=1), record(SECOND, group=1), True),
        (wanted(FIRST, VM1, group=1), record(SECOND, group=1), False),
        (wanted(FIRST, VM1, group=1), record(SECOND, group=1, op="x"), True),
        (wanted(FIRST, group=1), record(SECOND, None, group=1, phase=Phase.INACTIVE), False),
        (wanted(FIRST, group=1), record(SECOND, group=1, phase=Phase.PREPARING), True),
        (wanted(FIRST, group=1), record(SECOND, group=1, phase=Phase.RELEASING), True),
        (wanted(FIRST, None, group=1), record(SECOND, group=1), True),
        (wanted(FIRST, physfn=SECOND), record(SECOND), True),
        (wanted(FIRST, VM1, physfn=SECOND), record(SECOND), True),
        (wanted(FIRST), record(SECOND, physfn=FIRST), True),
        (wanted("1-1", controller=FIRST), record(FIRST), True),
        (wanted(FIRST), record("1-1", controller=FIRST), True),
        (wanted("1-1", controller=FIRST), record("1-2", controller=FIRST), False),
    ],
)
def test_what_is_in_the_way_of_a_claim(want: Record, have: Record, conflict: bool) -> None:
    assert (find_conflict(want, {have.key: have}) is not None) == conflict


def test_a_controller_and_what_is_on_it_are_not_taken_together() -> None:
    stick, controller = wanted("1-1", controller=FIRST), wanted(FIRST)
    for together in ([stick, controller], [controller, stick]):
        with pytest.raises(NotAssignableError, match="1-1"):
            check_together(together)
    check_together([stick._replace(op=None), wanted(SECOND)._replace(op=None)])


@pytest.mark.parametrize(
    ("more", "stranded"),
    [
        ({}, True),
        ({"phase": Phase.RELEASING}, True),
        ({"phase": Phase.PREPARING}, False),
        ({"phase": Phase.INACTIVE}, False),
        ({"handed": True}, False),
        ({"group": None}, False),
        ({"op": "x"}, False),
        ({"stuck": "EIO"}, False),
    ],
)
def test_who_stays_for_a_group_alone_goes_home_with_the_last(
    more: dict[str, object], stranded: bool
) -> None:
    """What a guest has stays, what somebody works on is that one's, what is stuck has had its turn."""
    sibling = record(FIRST, **{"group": 1, "handed": False} | more)
    assert is_orphaned(sibling, [sibling]) == stranded
    user = record(SECOND, group=1, handed=True)
    assert not is_orphaned(sibling, [sibling, user])
    assert is_orphaned(sibling, [sibling, user], lambda each: each is sibling) == stranded
    assert is_orphaned(sibling, [sibling, user], lambda each: each is user) == stranded


def device(address: str, kernel_driver: str | None, **more: object) -> PCIDevice:
    return PCIDevice(
        PCIAddress.parse(address),
        "pci:v00008086d000010D3sv00000000sd00000000bc02sc00i00",
        kernel_driver,
        1,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("kernel_driver", "blocks"),
    [
        (None, False), ("pcieport", False), ("pci-stub", False), ("vfio-pci", False),
        ("mlx5_vfio_pci", False), ("nvgrace-gpu-vfio-pci", False), ("e1000e", True),
        ("pciback", True), ("pci-pf-stub", True), ("uio_pci_generic", True),
    ],
)  # fmt: skip
def test_members_that_block_a_group(kernel_driver: str | None, blocks: bool) -> None:
    first, second = device(FIRST, "e1000e"), device(SECOND, kernel_driver)
    members = [first, second]
    whole = group_blockers(first, members, {FIRST}, whole=True)
    assert whole == ([second] if blocks else [])
    if blocks:
        with pytest.raises(GroupNotViableError) as raised:
            group_blockers(first, members, {FIRST}, whole=False)
        assert raised.value.culprits == (SECOND,)
        for word in (FIRST, SECOND, str(kernel_driver), "020000", "8086:10d3", "--whole-group"):
            assert word in str(raised.value)


def details(**more: object) -> PCIDetails:
    values: dict[str, object] = dict.fromkeys(PCIDetails._fields)
    values |= {"virtual_functions": (), "functions_below": (), "numvfs": 0} | more
    return PCIDetails(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["lent", "on vfio-pci"])
def test_a_virtual_function_of_a_parent_that_is_taken(how: str) -> None:
    parent = device(FIRST, "vfio-pci" if how == "on vfio-pci" else "igb")
    if how == "lent":
        parent = parent._replace(used_by=VM1)
    child = device(SECOND, None, physfn=FIRST)
    inventory = Inventory({"pci": {FIRST: parent, SECOND: child}}, {})
    with pytest.raises(NotAssignableError, match=FIRST):
        check_functions(child, details(), inventory)
    free = Inventory({"pci": {FIRST: device(FIRST, "igb"), SECOND: child}}, {})
    check_functions(child, details(), free)


def test_virtual_functions_and_their_domains_are_named() -> None:
    parent, child = device(FIRST, "igb"), device(SECOND, "vfio-pci", physfn=FIRST, used_by=VM1)
    inventory = Inventory({"pci": {FIRST: parent, SECOND: child}}, {})
    with pytest.raises(NotAssignableError) as raised:
        check_functions(parent, details(numvfs=1, virtual_functions=(SECOND,)), inventory)
    for word in (FIRST, SECOND, "vm1", "sriov_numvfs"):
        assert word in str(raised.value)


def test_functions_that_a_driver_has_made_keep_their_device_on_it() -> None:
    vmd = device(FIRST, "vmd")
    with pytest.raises(NotAssignableError, match=f"{SECOND}.* unbind it yourself") as raised:
        check_functions(
            vmd, details(functions_below=(SECOND,)), Inventory({"pci": {FIRST: vmd}}, {})
        )
    assert raised.value.rule == "functions-below"


def test_an_unmanaged_device_is_not_taken_from_its_driver() -> None:
    unmanaged, nic = PCIHostdev(address=FIRST, managed=False), device(FIRST, "e1000e")
    with pytest.raises(NotAssignableError, match="e1000e; detach it first"):
        check_managed(unmanaged, nic, on_stub=False)
    check_managed(unmanaged, nic, on_stub=True)
    check_managed(PCIHostdev(address=FIRST), nic, on_stub=False)
