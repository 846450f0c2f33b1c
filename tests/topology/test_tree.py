"""What hangs on what: the tree is that of the kernel's paths, and has every device once."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core.simulated import SimulatedHost
from hostdev_core.topology.tree import Node
from tests.helpers.captures import scratch
from tests.helpers.cli_command import QEMU, ask, run
from tests.topology.machines import read

pytestmark = pytest.mark.quick_cases

MACHINES = sorted((Path(__file__).parents[1] / "machines").glob("*.json"))


def branches(host: SimulatedHost) -> dict[str, str]:
    """The names above each node, down to its own, with their kinds."""
    found: dict[str, str] = {}

    def add(node: Node, above: str) -> None:
        found[node.name] = f"{above}{node.name}"
        for child in node.children:
            add(child, f"{above}{node.name}/")

    for root in read(host).roots:
        add(root, "")
    return found


@pytest.mark.parametrize("file", MACHINES, ids=lambda file: file.stem)
def test_every_device_is_there_once_where_the_kernel_has_it(file: Path, tmp_path: Path) -> None:
    host = SimulatedHost.replay(file, tmp_path / "machine")
    nodes = [node for root in read(host).roots for node in root.walk()]
    listed = [device["address"] for device in ask("list", host=host)["devices"]]
    assert sorted(node.name for node in nodes if node.is_device) == sorted(listed)
    assert len({node.name for node in nodes}) == len(nodes)
    ways = branches(host)
    for kind in ("pci", "usb"):
        for name in host.sysfs.names(f"bus/{kind}/devices"):
            if name in ways:
                real = host.sysfs.real_path(f"bus/{kind}/devices/{name}")
                assert real is not None
                assert real.endswith(f"/{ways[name]}")


def test_bridges_hubs_and_domains_have_their_places(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "machine")
    host.add_pci("0000:00:01.0", class_="060400", kernel_driver="pcieport", iommu_group=1)
    host.add_pci("0000:01:00.0", parent="0000:00:01.0", iommu_group=1, numa_node=0)
    host.add_pci("0000:80:05.5", class_="010400", kernel_driver="vmd", numa_node=1)
    host.add_pci("10000:00:02.0", class_="060400", parent="0000:80:05.5", numa_node=1)
    host.add_pci("10000:01:00.0", class_="010802", parent="10000:00:02.0", numa_node=1)
    host.add_usb("1-1.4", controller="0000:00:14.0")
    host.add_usb("2-1", controller="platform")
    ways = branches(host)
    assert ways["0000:01:00.0"] == "pci0000:00/0000:00:01.0/0000:01:00.0"
    assert (
        ways["10000:01:00.0"] == "pci0000:80/0000:80:05.5/pci10000:00/10000:00:02.0/10000:01:00.0"
    )
    assert ways["1-1.4"] == "pci0000:00/0000:00:14.0/usb1/1-1/1-1.4"
    assert ways["2-1"].endswith("/usb2/2-1")
    roots = {root.name: root for root in read(host).roots}
    assert [*roots][:2] == ["pci0000:00", "pci0000:80"]
    assert {root.kind for root in roots.values()} == {"root bus", "elsewhere"}
    assert roots["pci0000:80"].numa_node == 1
    kinds = {node.name: node.kind for root in roots.values() for node in root.walk()}
    assert (kinds["usb1"], kinds["1-1"], kinds["1-1.4"]) == ("hub", "hub", "usb")


def test_ports_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "machine")
    for port in ("1-10", "1-2", "1-1.12", "1-1.3"):
        host.add_usb(port)
    names = [node.name for root in read(host).roots for node in root.walk()]
    assert names[-6:] == ["usb1", "1-1", "1-1.3", "1-1.12", "1-2", "1-10"]


@pytest.mark.sample
def test_the_document_has_what_list_has_and_who_has_it(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "1-3", *QEMU, host=host)
    document = ask("topology", host=host)
    found: dict[str, Any] = {}

    def add(node: dict[str, Any]) -> None:
        if node["kind"] in {"pci", "usb"}:
            found[node["name"]] = node["device"]
        for child in node["children"]:
            add(child)

    for root in document["tree"]:
        add(root)
    listed = ask("list", host=host)["devices"]
    assert found == {device["address"]: device for device in listed}
    assert document["borrowers"] == {"vm1 (qemu)": ["1-3", "0000:01:00.0"]}
    assert document["ledger_error"] is None


def test_a_record_whose_device_is_gone_is_told_apart(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", *QEMU, host=host)
    host.unplug("0000:01:00.0")
    *_, last = ask("topology", host=host)["tree"]
    assert (last["kind"], last["name"]) == ("absent", "not there")
    (child,) = last["children"]
    assert (child["name"], child["device"]["use"]["code"]) == ("0000:01:00.0", "gone")
    shown = run("topology", host=host)
    assert "gone, for vm1 (qemu)" in shown.stdout
    assert "0000:01:00.0" in shown.stderr


ADDRESSES = [f"0000:0{bus}:00.0" for bus in range(4)]
ways = st.lists(
    st.lists(st.sampled_from(["pci0000:00", *ADDRESSES]), min_size=1, max_size=5, unique=True)
)


@given(ways)
def test_ways_that_contradict_each_other_lose_no_device(drawn: list[list[str]]) -> None:
    """As two reads do between which devices were moved; here all links are there at once."""
    with scratch() as folder:
        host = SimulatedHost.create(folder / "machine")
        for address in ADDRESSES:
            host.add_pci(address)
        for way in drawn:
            link = Path(host.path(f"sys/bus/pci/devices/{way[-1]}"))
            if link.is_symlink():
                link.unlink()
                link.symlink_to("../../../devices/" + "/".join(way))
        nodes = [node.name for root in read(host).roots for node in root.walk()]
        assert len({*nodes}) == len(nodes)
        assert {*ADDRESSES} <= {*nodes}
