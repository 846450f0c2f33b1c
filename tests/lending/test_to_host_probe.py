"""A device that is sent to a driver which the kernel chooses, while something keeps it from there."""

from pathlib import Path

import pytest

from hostdev_core import Connection, ReattachError
from hostdev_core.simulated import SimulatedHost

CARD, IDS = "0000:05:00.0", "1af4:1041"
OVERRIDE = f"bus/pci/devices/{CARD}/driver_override"


@pytest.fixture(autouse=True)
def card(host: SimulatedHost) -> None:
    host.add_driver("carddrv", module="cardmod", ids=(IDS,), loaded=False)
    host.add_pci(CARD, id=IDS, kernel_driver="vfio-pci", driver_override="vfio-pci")


def test_no_module_is_loaded_that_may_be_blacklisted(host: SimulatedHost, conn: Connection) -> None:
    told = Path(host.path("etc/modprobe.d/local.conf"))
    told.symlink_to("local.conf")  # ELOOP, for root too
    with pytest.raises(ReattachError) as raised:
        conn.reattach_device(CARD, to_host=True)
    assert "none took it" in str(raised.value.exceptions[0])
    assert not host.modules.is_loaded("cardmod")
    (record,) = host.ledger.records()
    assert record.stuck
    told.unlink()
    host.modules.load("cardmod")
    conn.recover()
    assert host.snapshot()[CARD]["kernel_driver"] == "carddrv"
    assert host.ledger.records() == []


def test_an_override_of_somebody_elses_stays(host: SimulatedHost, conn: Connection) -> None:
    host.on_write("*drivers_probe", errno=5)
    with pytest.raises(ReattachError):
        conn.reattach_device(CARD, to_host=True)
    assert [record.stuck is not None for record in host.ledger.records()] == [True]
    host.sysfs.write(OVERRIDE, "foreign")
    before = host.snapshot()
    with pytest.raises(ReattachError) as raised:
        conn.recover()
    assert "foreign" in str(raised.value.exceptions[0])
    assert host.snapshot() == before
    host.sysfs.write(OVERRIDE, "\n")
    conn.recover()
    assert host.snapshot()[CARD]["kernel_driver"] == "carddrv"
    assert host.ledger.records() == []
