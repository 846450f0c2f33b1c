"""Whatever lies on whatever: the walk ends, and finds every function that is to be found."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostdev_guard.chains import find_chains
from hostdev_guard.mounts import UnreadableError, parse_mount, unescape
from machines import Machine

BOUNDED = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
ADDRESSES = [f"0000:0{number}:00.0" for number in range(1, 4)]
NAMES = st.text(min_size=1, max_size=8)


@settings(derandomize=True, deadline=None)
@given(
    st.dictionaries(NAMES, st.lists(NAMES, max_size=4), max_size=12), st.lists(NAMES, max_size=3)
)
def test_the_walk_ends_and_misses_nothing(graph: dict[str, list[str]], start: list[str]) -> None:
    chains = find_chains(start, lambda node: graph.get(node, []))
    reachable, new = {*start}, {*start}
    while new:
        new = {lower for node in new for lower in graph.get(node, [])} - reachable
        reachable |= new
    assert {*chains} == reachable
    for node, chain in chains.items():
        assert chain[-1] == node.rpartition("/")[2].replace("!", "/")


@st.composite
def stacks(draw: st.DrawFn) -> list[list[int]]:
    """Volumes over what was there before: the numbers of their members, disks first."""
    count = draw(st.integers(1, 8))
    return [
        draw(
            st.lists(st.integers(0, len(ADDRESSES) + each - 1), min_size=1, max_size=3, unique=True)
        )
        for each in range(count)
    ]


@BOUNDED
@given(stacks(), st.booleans())
def test_each_disk_below_a_mount_is_refused(stack: list[list[int]], circle: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder) / "host")
        names = [machine.nvme(each, f"nvme{i}n1") for i, each in enumerate(ADDRESSES)]
        below: list[set[str]] = [{address} for address in ADDRESSES]
        for number, members in enumerate(stack):
            names.append(machine.virtual(f"dm-{number}", *(names[each] for each in members)))
            below.append({address for each in members for address in below[each]})
        if circle:
            machine.link(machine.node("dm-0") / "slaves" / names[-1], machine.node(names[-1]))
        machine.mount("/srv", names[-1])
        refused = machine.refused(*ADDRESSES)
    mounted = {pair for pair in refused if pair[1] != "in-use"}
    assert mounted == {(address, "mounted-filesystem") for address in below[-1]}
    volumes = {address for each in below[len(ADDRESSES) :] for address in each}
    assert {address for address, _ in {*refused} - mounted} <= volumes  # for those left idle
    for address, rule in mounted:
        (evidence,) = refused[address, rule]
        assert evidence.startswith(f"/srv is on {names[-1]}, on ")
        assert evidence.endswith(f", on {address}")


def escaped(text: str) -> str:
    """As the kernel does (mangle_path)."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=30))
def test_a_name_survives_the_kernels_spelling(name: str) -> None:
    assert unescape(escaped(name)) == name
    line = f"36 35 98:0 /mnt {escaped(name)} rw shared:1 master:2 - ext3 {escaped(name)} rw,a=b"
    mount = parse_mount(line)
    assert (mount.point, mount.source, mount.options) == (name, name, ("rw", "a=b"))


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=60))
def test_a_strange_line_is_an_error_of_its_own(line: str) -> None:
    with suppress(UnreadableError):
        parse_mount(line)


@pytest.mark.parametrize("point", ["-", " ", ""])
def test_a_dash_may_be_a_name(point: str) -> None:
    mount = parse_mount(f"36 35 0:5 {escaped(point)} {escaped(point)} rw - tmpfs - rw")
    assert (mount.point, mount.source) == (point, "-")
