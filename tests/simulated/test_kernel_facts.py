"""The simulated kernel gives the answers that the real one gave, fact by fact."""

from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.kernel.facts import (
    FACTS,
    HIDDEN_FACTS,
    LOCKED_PCI_FACTS,
    LOCKED_USB_FACTS,
    SRIOV_FACTS,
    SYSCTL_FACTS,
    XEN_FACTS,
    Fact,
)
from tests.kernel.facts.raw import bound, of_device, read

pytestmark = pytest.mark.quick_cases

DEVICE, DRIVER = "0000:01:00.0", "e1000e"


@pytest.fixture
def host(tmp_path: Path, request: pytest.FixtureRequest) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host", dom0=bool(getattr(request, "param", False)))
    host.add_pci(DEVICE, kernel_driver=DRIVER, sriov_totalvfs=4, net="eth0")
    for module in ("vfio-pci", "pci-stub"):
        host.modules.load(module)
    return host


def check(fact: Fact, host: SimulatedHost) -> None:
    before = host.snapshot()
    assert fact.run(host.sysfs, DEVICE, DRIVER) == fact.expected
    assert bound(host.sysfs, DEVICE) == DRIVER
    assert read(host.sysfs, of_device(DEVICE, "driver_override")) == "(null)"
    assert host.snapshot() == before


@pytest.mark.parametrize("fact", [*FACTS, *SRIOV_FACTS], ids=lambda fact: fact.name)
def test_fact(fact: Fact, host: SimulatedHost) -> None:
    check(fact, host)


@pytest.mark.parametrize("host", [True], indirect=True, ids=["dom0"])
@pytest.mark.parametrize("fact", XEN_FACTS, ids=lambda fact: fact.name)
def test_xen_fact(fact: Fact, host: SimulatedHost) -> None:
    check(fact, host)


@pytest.mark.parametrize("fact", HIDDEN_FACTS, ids=lambda fact: fact.name)
def test_hidden_fact(fact: Fact, host: SimulatedHost) -> None:
    before = host.snapshot()
    place, aside = Path(host.path("sys")), Path(host.path("aside"))
    place.rename(aside)
    place.mkdir()
    assert fact.run(host.sysfs, DEVICE, DRIVER) == fact.expected
    assert [*place.iterdir()] == []
    place.rmdir()
    aside.rename(place)
    assert host.snapshot() == before


@pytest.mark.parametrize("fact", LOCKED_USB_FACTS, ids=lambda fact: fact.name)
def test_fact_of_a_locked_usb_device(fact: Fact, host: SimulatedHost) -> None:
    stick = host.add_usb("1-1", serial="A1", product="Stick", manufacturer="Maker")
    with host.hold_lock(stick):
        assert fact.run(host.sysfs, stick) == fact.expected


@pytest.mark.parametrize("fact", LOCKED_PCI_FACTS, ids=lambda fact: fact.name)
def test_fact_of_a_locked_pci_device(fact: Fact, host: SimulatedHost) -> None:
    with host.hold_lock(DEVICE):
        assert fact.run(host.sysfs, DEVICE) == fact.expected


@pytest.mark.parametrize("fact", SYSCTL_FACTS, ids=lambda fact: fact.name)
def test_fact_of_a_sysctl(fact: Fact, host: SimulatedHost) -> None:
    boot_id = Path(host.path("proc/sys/kernel/random/boot_id"))
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("5ca1ab1e-0000-4000-8000-000000000000\n", encoding="ascii")
    assert fact.run(host.texts, str(boot_id)) == fact.expected
