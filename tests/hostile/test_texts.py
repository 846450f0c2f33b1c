"""Whatever is typed or passed: read exactly, or refused with a HostdevError; never a path, never SQL."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import (
    Connection,
    Domain,
    InputError,
    PCIAddress,
    PCIHostdev,
    USBHostdev,
    open_connection,
)
from hostdev_core.model.address import USBSelector, parse_address
from hostdev_core.simulated import SimulatedHost
from tests.hostile.command import NASTY, attempt, call, give_back, quick, slow, texts, things, words
from tests.sample import NIC

# Near the forms, so that mutations of them are tried too.
NEAR = st.sampled_from([NIC, "01:00.0", "1-1.5", "001:020", "18d1:4e22", "10000000:ff:1f.7"])
almost = st.builds(lambda a, b, c: a + b + c, texts, NEAR, texts) | NEAR | texts


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_usb("1-1", id="046d:c077", product="Mouse")
    return host


@quick
@given(almost | things)
def test_what_is_read_as_an_address_prints_back_the_same(text: Any) -> None:
    for parse in (parse_address, PCIAddress.parse, USBSelector.parse):
        address = attempt(lambda parse=parse: parse(text))
        if address is not None:
            assert parse(str(address)) == address
            assert str(address).isascii()
            assert len(str(address)) <= 64


@quick
@given(
    st.sampled_from([PCIHostdev, USBHostdev, Domain]),
    st.sampled_from(
        ["address", "managed", "stub", "allow", "port", "bus", "device", "vendor", "product",
         "serial", "startup_policy", "name", "hostdevs", "uuid"]
    ),
    things,
)  # fmt: skip
def test_a_wrong_argument_is_an_input_error(kind: type, argument: str, value: Any) -> None:
    good: dict[str, Any] = {
        PCIHostdev: {"address": NIC},
        USBHostdev: {"port": "1-1"},
        Domain: {"name": "vm1"},
    }[kind]
    if argument not in {field.name for field in kind.__attrs_attrs__}:  # type: ignore[attr-defined]
        return
    made = attempt(lambda: kind(**good | {argument: value}), InputError)
    assert str(made).isprintable()


@quick
@given(st.lists(things, max_size=3))
def test_devices_of_any_type_in_a_list(devices: list[Any]) -> None:
    domain = attempt(lambda: Domain("vm1", devices))
    assert domain is None or len(domain.hostdevs) == len(devices)


@quick
@given(
    st.builds(
        lambda *parts: "".join(parts),
        st.sampled_from(["qemu", "test", "xen", "QEMU", "", " qemu", "q e", "qe\nmu"]) | texts,
        st.sampled_from(["://", ":", ":/", ":////", ""]),
        st.sampled_from(["", "user:pw@host:99", "[::1", "[x]", "\u2100", "a@b@c", "host:port"]),
        st.sampled_from(["/system", "/default", "/%00", "/%2e%2e/etc", "/../..", "?a=b#c", ""]),
        texts,
    )
    | things
)
def test_any_uri_opens_or_is_refused(uri: Any) -> None:
    conn = attempt(lambda: open_connection(uri, read_only=True))
    if conn is not None:
        with conn:
            assert conn.uri == (uri or "qemu:///system")


@slow
@given(
    st.sampled_from(["show", "plan", "prepare", "reattach", "device", "status", "list", "nothing"]),
    st.lists(almost.map(lambda text: text.replace("\x00", "")), max_size=3),
    st.lists(
        st.sampled_from(["--stub", "--allow", "--uuid", "--timeout", "-c", "--whole-group", "-v"])
        | words,
        max_size=3,
    ),
)
def test_any_command_line(
    host: SimulatedHost, command: str, arguments: list[str], options: list[str]
) -> None:
    before = host.snapshot()
    call(command, *arguments, *options, host=host)
    give_back(host)
    assert host.snapshot() == before


@slow
@given(words)
def test_a_stub_is_a_name_and_no_path(host: SimulatedHost, name: str) -> None:
    before = host.snapshot()
    for stub in (name, f"{name}vfio-pci", f"../../../{name}/vfio-pci", f"a/{name}-vfio-pci"):
        answer = call("plan", "vm1", NIC, f"--stub={stub}", "-c", "qemu:///system", host=host)
        assert answer.code in {1, 2} or stub == "vfio-pci"
        if "/" in stub:
            assert answer.code == 2
    assert host.snapshot() == before
    assert host.writes() == []


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "1e400", "0", "-1", "", "1_0e9", "\u0661e9"]
)
def test_a_timeout_is_a_number_of_seconds(host: SimulatedHost, text: str) -> None:
    assert call("status", f"--timeout={text}", host=host).code == 2


@pytest.mark.parametrize("text", [*NASTY, "x" * 10_000_000], ids=range(len(NASTY) + 1))
def test_a_name_of_any_length_is_told_in_short(host: SimulatedHost, text: str) -> None:
    before = host.snapshot()
    for line in (
        ("prepare", "--", text, NIC),
        ("prepare", "vm1", "--", text),
        ("prepare", "vm1", NIC, f"--uuid={text}"),
        ("prepare", "vm1", NIC, f"--allow={text}"),
        ("prepare", "vm1", NIC, f"--stub={text}"),
        ("show", "--", text),
    ):
        answer = call("-c", "qemu:///system", *line, host=host)
        assert len(answer.err) < 3000
        give_back(host)
    assert host.snapshot() == before


@quick
@given(things)
def test_a_device_that_is_asked_for_by_anything(
    host: SimulatedHost, conn: Connection, thing: Any
) -> None:
    before = host.snapshot()
    for work in (
        lambda: conn.detach_device(thing),
        lambda: conn.reattach_device(thing),
        lambda: conn.reset_device(thing),
        lambda: conn.forget_device(thing),
        lambda: conn.reattach_pci_hostdevs("vm1", thing),
        lambda: conn.reattach_usb_hostdevs("vm1", thing),
        lambda: conn.prepare_pci_hostdevs("vm1", thing),
        lambda: conn.prepare_usb_hostdevs("vm1", thing),
        lambda: conn.reattach_hostdevs(thing),
        lambda: conn.get_domain_active_pci_hostdev_list(thing),
    ):
        attempt(work)
    assert host.snapshot() == before
    assert host.ledger.records() == []
