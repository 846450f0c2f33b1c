"""Devices are found in the forms in which programs print them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core.known_errors.mentions import devices_in
from hostdev_core.model.address import parse_address

pytestmark = pytest.mark.quick_cases

LINES = {
    "vfio-pci 0000:01:00.0: not ready 1023ms after FLR; waiting": ["0000:01:00.0"],
    "-device vfio-pci,host=01:00.1: vfio 0000:01:00.1: group 7": ["0000:01:00.1"],
    "Domain 3:PCI device 0:1:0.0 is not assignable": ["0000:01:00.0"],
    "DMAR: [DMA Read NO_PASID] Request device [3d:02.1] fault addr 0x0": ["0000:3d:02.1"],
    "vfio_region_read(10000:e1:00.0:region0+0x88, 4) failed": ["10000:e1:00.0"],
    "no access to /sys/bus/pci/devices/0000:01:00.0/config": ["0000:01:00.0"],
    "failed to find host usb device 1:20": ["001:020"],
    "host usb device 001.020 not found": ["001:020"],
    "Did not find USB device 18d1:4e22 bus:1 device:20": ["001:020"],
    "-device usb-host,hostbus=1,hostaddr=20: failed": ["001:020"],
    "usb 1-1.5: USB disconnect, device number 20": ["1-1.5"],
    "0000:01:00.0 with 0000:01:00.1 and 0000:01:00.0": ["0000:01:00.0", "0000:01:00.1"],
    "2026-11-29 08:15:42.123+0000: starting up": [],
    "an IPv6 address fe80::1:2:3.4 and a MAC 52:54:00:12:34:56": [],
}


@pytest.mark.parametrize("line", LINES)
def test_devices_of_a_line(line: str) -> None:
    assert [*devices_in(line)] == LINES[line]


@given(st.text(alphabet="0123456789abcdef:.-usb device[]", max_size=60))
def test_whatever_is_found_is_a_name_of_a_device(line: str) -> None:
    for name in devices_in(line):
        try:
            parse_address(name)
        except ValueError:
            # A slot above 1f: such a device is nowhere, and finding it named does no harm.
            assert int(name.rsplit(":", 1)[1].split(".")[0], 16) > 0x1F
