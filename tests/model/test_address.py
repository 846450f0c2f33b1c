import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import (
    Domain,
    InputError,
    InvalidAddressError,
    PCIAddress,
    PCIHostdev,
    USBHostdev,
    parse_hostdev,
)
from hostdev_core.model.address import FORMS, USBSelector, parse_address, quoted

pytestmark = pytest.mark.quick_cases

pci = st.builds(
    PCIAddress,
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0x1F),
    st.integers(0, 7),
)
ports = st.from_regex(r"[1-9][0-9]{0,2}-[1-9][0-9]{0,2}(\.[1-9][0-9]{0,2}){0,6}", fullmatch=True)
ports = ports.filter(str.isascii)
hex4 = st.from_regex(r"[0-9a-f]{4}", fullmatch=True).filter(str.isascii)


@given(pci)
def test_a_pci_address_survives_its_text(address: PCIAddress) -> None:
    assert PCIAddress.parse(str(address)) == address
    assert PCIAddress.parse(str(address).upper()) == address
    assert parse_address(str(address)) == address
    assert PCIHostdev(address=str(address)).address == address  # type: ignore[arg-type]


@given(pci)
def test_the_domain_may_be_left_out(address: PCIAddress) -> None:
    short = str(address._replace(domain=0)).removeprefix("0000:")
    assert PCIAddress.parse(short) == address._replace(domain=0)


@given(ports)
def test_a_usb_port_survives_its_text(port: str) -> None:
    assert parse_address(port) == USBSelector(port=port)
    assert str(parse_address(port)) == port


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_usb_number_survives_its_text(bus: int, device: int) -> None:
    assert parse_address(f"{bus:03}:{device:03}") == USBSelector(bus=bus, device=device)


@given(hex4, hex4)
def test_usb_ids_survive_their_text(vendor: str, product: str) -> None:
    selector = parse_address(f"{vendor}:{product}")
    assert selector == USBSelector(vendor=vendor, product=product)
    assert parse_address(f"{vendor}:{product}".upper()) == selector


@given(st.text())
def test_any_text_is_an_address_or_an_error_that_lists_the_forms(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidAddressError as error:
        message = str(error)
        assert FORMS in message or "slot goes up to" in message
        assert message.isprintable()
        assert len(message) < 400
    else:
        assert text.isascii()
        assert str(address).lower().endswith(text.lower().lstrip("0")[-6:])


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "01:00", "01:00.8", "01:20.0", "1:00.0", "000:01:00.0", "000000000:01:00.0",
        "0000:01:00.0 ", "0000:01:00.0\n", "\n0000:01:00.0", "0000:01:00.0\x00", "0000:01:0g.0",
        "0000:01:00.0/../..", "../0000:01:00.0", "/sys/bus/pci/devices/0000:01:00.0", "0x01:00.0",
        "\u0660\u0660\u0660\u0660:01:00.0", "1-", "-1", "0-1", "1-0", "1-1.", "1-1..2", "1-1:1.0", "usb1",
        "18d1:", "18d1:4e222", "1:2", "001:0020", "\uff11-\uff11", "*", "a" * 10000,
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidAddressError) as raised:
        parse_hostdev(text)
    assert isinstance(raised.value, ValueError)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("part", "words"),
    [("usb3", "root hub of USB bus 3"), ("1-1.5:1.0", "is an interface of USB device 1-1.5")],
)
def test_a_name_in_sysfs_that_is_no_device(part: str, words: str) -> None:
    """The error tells the part from the device, so that one knows what to name instead."""
    with pytest.raises(InvalidAddressError, match=words):
        Domain("vm1", [part])


@pytest.mark.parametrize("value", [None, 1, 1.5, b"01:00.0", ("01:00.0",), object()])
def test_an_address_is_a_text(value: object) -> None:
    with pytest.raises(InvalidAddressError):
        PCIHostdev(address=value)  # type: ignore[arg-type]


def test_an_address_out_of_range() -> None:
    with pytest.raises(InvalidAddressError):
        PCIHostdev(address=PCIAddress(0, 0, 0x20, 0))


@pytest.mark.parametrize(
    "parts",
    [
        {}, {"port": "1"}, {"port": ""}, {"bus": 0}, {"bus": 1000}, {"device": -1},
        {"vendor": "46d"}, {"vendor": "046g"}, {"product": "0x46"}, {"vendor": "\u0660\u0664\u0666d"},
    ],
)  # fmt: skip
def test_what_is_no_usb_selector(parts: dict[str, object]) -> None:
    with pytest.raises(InvalidAddressError):
        USBHostdev(**parts)  # type: ignore[arg-type]


def test_usb_ids_are_compared_in_lower_case() -> None:
    assert USBHostdev(vendor="18D1", product="4E22") == USBHostdev(vendor="18d1", product="4e22")
    assert str(USBHostdev(vendor="18D1")) == "18d1:*"
    assert str(USBHostdev(bus=1, serial="x")) == "001:* serial 'x'"


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 256, None, 7])
def test_what_is_no_domain_name(name: object) -> None:
    with pytest.raises(InputError):
        Domain(name)  # type: ignore[arg-type]


def test_a_domain_reads_texts() -> None:
    domain = Domain("vm1", ["01:00.0", "1-1.5", USBHostdev(serial="x")])
    assert [hostdev.kind for hostdev in domain.hostdevs] == ["pci", "usb", "usb"]
    assert Domain("vm1", "01:00.0").hostdevs == domain.hostdevs[:1]
    assert Domain("vm1", USBSelector.parse("1-1.5")).hostdevs == domain.hostdevs[1:2]
    assert Domain.of("vm1") == Domain("vm1")
    assert Domain.of(domain) is domain
    with pytest.raises(InvalidAddressError):
        Domain("vm1", ["nonsense"])


def test_a_startup_policy_is_one_of_three() -> None:
    with pytest.raises(InputError, match="requisite"):
        USBHostdev(port="1-1", startup_policy="perhaps")  # type: ignore[arg-type]


def test_rules_are_a_collection() -> None:
    with pytest.raises(InputError):
        PCIHostdev(address="01:00.0", allow="root")  # type: ignore[arg-type]
    assert PCIHostdev(address="01:00.0", allow=["root"]).allow == {"root"}  # type: ignore[arg-type]


@given(st.text())
def test_a_foreign_text_is_quoted_short_and_printable(text: str) -> None:
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= 80


@pytest.mark.parametrize("text", ["1-1.5", "001:020", "18d1:4e22"])
def test_a_usb_device_is_no_pci_address(text: str) -> None:
    with pytest.raises(InvalidAddressError, match=f"'{text}' is no PCI address but a USB device's"):
        PCIAddress.parse(text)
