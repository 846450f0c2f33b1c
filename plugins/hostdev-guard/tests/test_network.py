"""Network cards: the default route's, and members of bonds and bridges."""

import pytest

from hostdev_core import VetoError
from machines import Machine

CARD, OTHER, THIRD = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """One with three network cards."""
    for number, address in enumerate((CARD, OTHER, THIRD)):
        machine.add(address, "e1000e", id="8086:10d3", class_="020000")
        machine.interface(f"eth{number}", address)
    return machine


def test_the_default_route(machine: Machine) -> None:
    machine.route("eth0")
    machine.route("eth1", to="0002A8C0", mask="00FFFFFF")
    assert machine.refused(CARD, OTHER, THIRD) == {
        (CARD, "default-route"): (f"the default route goes over eth0, on {CARD}",)
    }


def test_the_ipv6_default_route(machine: Machine) -> None:
    machine.route6("eth1")
    machine.route6("lo", flags=0x00200200)
    assert machine.refused(CARD, OTHER, THIRD) == {
        (OTHER, "default-route"): (f"the IPv6 default route goes over eth1, on {OTHER}",)
    }


def test_a_route_that_goes_nowhere(machine: Machine) -> None:
    machine.route("eth0", flags=0x201)
    machine.route("eth1", flags=0)
    machine.route6("eth2", flags=0x200)
    assert machine.refused(CARD, OTHER, THIRD) == {}


def test_the_default_route_over_a_bond(machine: Machine) -> None:
    machine.route(machine.joined("bond0", "bonding", "eth0", "eth1"))
    assert machine.refused(CARD, OTHER, THIRD) == {
        (address, rule): (f"{words} bond0, on eth{number}, on {address}",)
        for number, address in enumerate((CARD, OTHER))
        for rule, words in (("default-route", "the default route goes over"),)
    } | {
        (address, "bond-or-bridge"): (f"bond bond0 has eth{number}, on {address}",)
        for number, address in enumerate((CARD, OTHER))
    }


def test_a_bridge_over_a_vlan_over_a_bond(machine: Machine) -> None:
    bond = machine.joined("bond0", "bonding", "eth0")
    vlan = machine.interface("bond0.10", over=[bond])
    machine.route(machine.joined("br0", "bridge", vlan, machine.interface("tap0")))
    assert machine.refused(CARD, OTHER) == {
        (CARD, "default-route"): (
            f"the default route goes over br0, on bond0.10, on bond0, on eth0, on {CARD}",
        ),
        (CARD, "bond-or-bridge"): (
            f"bond bond0 has eth0, on {CARD}",
            f"bridge br0 has bond0.10, on bond0, on eth0, on {CARD}",
        ),
    }


def test_a_vlan_alone_is_named_by_hostdev_itself(machine: Machine) -> None:
    machine.interface("eth0.10", over=["eth0"])
    assert machine.refused(CARD) == {(CARD, "in-use"): ("network interface eth0 is below eth0.10",)}
    machine.route("eth0.10")
    assert machine.refused(CARD) == {
        (CARD, "default-route"): (f"the default route goes over eth0.10, on eth0, on {CARD}",)
    }


def test_a_bridge_without_a_route(machine: Machine) -> None:
    machine.joined("br0", "bridge", "eth2")
    machine.joined("virbr0", "bridge", machine.interface("vnet0"))
    assert machine.refused(CARD, OTHER, THIRD) == {
        (THIRD, "bond-or-bridge"): (f"bridge br0 has eth2, on {THIRD}",)
    }


def test_a_member_of_something_else(machine: Machine) -> None:
    machine.interface("ovs-system")
    machine.link(machine.net("eth0") / "master", machine.net("ovs-system"))
    assert machine.refused(CARD) == {(CARD, "bond-or-bridge"): (f"ovs-system has eth0, on {CARD}",)}


def test_a_tunnel_for_a_default_route_keeps_nothing(machine: Machine) -> None:
    machine.route(machine.interface("wg0"))
    assert machine.refused(CARD, OTHER, THIRD) == {}


def test_a_route_over_an_interface_that_is_gone(machine: Machine) -> None:
    machine.route("eth9")
    assert machine.refused(CARD) == {}


def test_a_usb_network_adapter_and_its_controller(machine: Machine) -> None:
    controller = "0000:00:14.0"
    machine.host.add_usb("1-4", id="0b95:1790", controller=controller, kernel_driver="ax88179_178a")
    machine.interface("enx0", "1-4")
    machine.route("enx0")
    words = "the default route goes over enx0, on 1-4"
    assert machine.refused("1-4") == {("1-4", "default-route"): (words,)}
    assert machine.refused(controller) == {
        (controller, "default-route"): (f"{words}, on {controller}",)
    }


@pytest.mark.parametrize("driver", ["igb", "vfio-pci"])
def test_a_virtual_function_and_its_physical_one(machine: Machine, driver: str) -> None:
    physical = machine.add("0000:05:00.0", driver, id="8086:1521", class_="020000")
    virtual = machine.add("0000:05:10.0", "igbvf", id="8086:1520", class_="020000")
    machine.link(machine.folder(virtual) / "physfn", machine.folder(physical))
    machine.interface("vf0", virtual)
    machine.route("vf0")
    words = f"the default route goes over vf0, on {virtual}"
    if driver == "igb":
        assert machine.refused(virtual) == {(virtual, "default-route"): (words,)}
        return
    with machine.connect() as conn, pytest.raises(VetoError, match=f"{words}, on {physical}"):
        conn.reset_device(physical)
    assert machine.host.writes() == []
