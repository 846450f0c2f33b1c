"""Known messages are found in a log of any size, form and malice."""

import io
import tracemalloc
from collections.abc import Sequence
from typing import BinaryIO, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostdev_core.known_errors.entry import LONGEST
from hostdev_core.known_errors.reading import CHUNK, SHOWN, SOME, Reading, read_log
from hostdev_core.known_errors.table import known_errors

pytestmark = pytest.mark.quick_cases

ERRORS = known_errors()
VIABLE = "vfio 0000:01:00.0: group 7 is not viable"
WAITING = "vfio-pci 0000:01:00.0: not ready 1023ms after FLR; waiting"
USUAL = "kernel: something happens here all the time\n"


def read(text: str | bytes) -> Reading:
    data = text if isinstance(text, bytes) else text.encode()
    return read_log(io.BytesIO(data), ERRORS)


def names(text: str | bytes) -> list[str]:
    return [finding.error.name for finding in read(text).findings]


def test_each_message_once_in_the_order_of_its_first_line() -> None:
    reading = read(f"{USUAL}{WAITING}\n{VIABLE}\n{USUAL}{WAITING}\n")
    assert [
        (finding.error.name, finding.number, finding.count) for finding in reading.findings
    ] == [("linux-not-ready", 2, 2), ("qemu-group-not-viable", 3, 1)]
    assert reading.lines == 5
    assert {*reading.unknown} == {USUAL.strip()}


def test_the_first_line_is_that_of_any_wording() -> None:
    hint = "Please ensure all devices within the iommu_group are bound to their vfio bus driver."
    (finding,) = read(f"{USUAL}{hint}\n{VIABLE}\n").findings
    assert (finding.line, finding.number, finding.count) == (hint, 2, 2)
    assert [*finding.groups] == [7]
    assert [*finding.devices] == ["0000:01:00.0"]


@pytest.mark.parametrize(
    "data",
    [
        VIABLE.encode("utf-16"),
        VIABLE.encode("utf-16-be"),
        VIABLE.encode("utf-8-sig"),
        b"\xff\xfe\x80" + VIABLE.encode() + b"\xc3",
        VIABLE.replace(" ", " \x1b[0m").encode(),
        f"a\r\n{VIABLE}\r\n".encode(),
        f'{{"MESSAGE": "{VIABLE}", "PRIORITY": "4"}}'.encode(),
    ],
    ids=["utf-16", "utf-16-be", "bom", "broken", "colours", "crlf", "json"],
)
def test_a_log_of_any_form(data: bytes) -> None:
    assert names(data) == ["qemu-group-not-viable"]


@pytest.mark.parametrize("shift", [*range(-len(VIABLE) - 1, 2), -LONGEST, -2 * LONGEST])
def test_a_message_across_the_end_of_what_is_read_at_a_time(shift: int) -> None:
    before = ("x" * 79 + "\n") * (CHUNK // 80 + 1)
    text = before[: CHUNK + shift - 1] + "\n" + VIABLE + "\n" + before
    (finding,) = read(text).findings
    assert finding.count == 1
    assert finding.number == text.count("\n", 0, text.index(VIABLE)) + 1
    assert finding.line == VIABLE
    assert [*finding.groups] == [7]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_colours_across_the_end_of_what_is_read_at_a_time(encoding: str) -> None:
    lines = [f"\x1b[32m[{number:9}]\x1b[0m\x1b[1;31m {VIABLE}\x1b[0m" for number in range(12_000)]
    (finding,) = read("\n".join(lines).encode(encoding)).findings
    assert (finding.count, finding.number) == (12_000, 1)


@pytest.mark.parametrize("at", [0, CHUNK - 20, 3 * CHUNK - 1])
def test_a_message_in_a_line_without_end(at: int) -> None:
    (finding,) = read("x" * at + " " + VIABLE + " " + "y" * (2 * CHUNK)).findings
    assert finding.count == 1
    assert VIABLE in finding.line
    assert len(finding.line) <= len(VIABLE) + 2 * SHOWN


def test_only_some_devices_are_kept() -> None:
    lines = [VIABLE.replace("01:00", f"{bus:02x}:00") for bus in range(1, 200)]
    (finding,) = read("\n".join(lines)).findings
    assert finding.count == 199
    assert len(finding.devices) == SOME


def test_the_unknown_is_said_of_a_few_lines_only() -> None:
    assert read("one\n\ntwo\n").unknown == ("one", "two")
    assert read("one\n" * 50).unknown == ()
    assert read("").lines == 0
    assert read("one").lines == read("one\n").lines == 1


PIECES = st.sampled_from(
    [
        *(
            piece
            for error in ERRORS
            for each in error.wordings
            for piece in (each.example, each.anchor)
        ),
        *("\n", " ", "\0", "\x1b[", "{group}", "vfio_region_read(" * 50, "a" * 3 * LONGEST),
    ]
)


@given(st.lists(PIECES | st.text(max_size=40), max_size=30))
@example(["dma_map("] * 5000)
@example(["not ready 1ms after "] * 5000)
@example(["dma_map(" * 240, "\n"] * 100)
def test_any_text_ends_and_what_is_found_is_there(pieces: Sequence[str]) -> None:
    text = "".join(pieces)
    reading = read(text.encode(errors="surrogatepass"))
    for finding in reading.findings:
        assert any(wording.anchor in finding.line for wording in finding.error.wordings)
        assert 1 <= finding.number <= reading.lines
        assert 1 <= finding.count <= len(text)


@given(st.binary(max_size=2000))
def test_any_bytes_end(data: bytes) -> None:
    assert read(data).lines <= len(data) + 1


class Endless:
    """A log of many megabytes that is never in memory; its second half has known messages."""

    def __init__(self, size: int, line: str) -> None:
        self.left = size
        self.block = (line.encode() * (CHUNK // len(line) + 1))[:CHUNK]

    def read(self, size: int) -> bytes:
        self.left -= min(size, self.left)
        return self.block[:size] if self.left else b""


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (8 << 20, USUAL),
        pytest.param(100 << 20, USUAL, marks=pytest.mark.long),
        pytest.param(100 << 20, "x" * 1000, marks=pytest.mark.long),
        pytest.param(8 << 20, VIABLE + "\n", marks=pytest.mark.long),
        pytest.param(20 << 20, "dma_map(" * 100, marks=pytest.mark.long),
    ],
)
def test_the_memory_does_not_grow_with_the_log(size: int, line: str) -> None:
    tracemalloc.start()
    try:
        read_log(cast("BinaryIO", Endless(size, line)), ERRORS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 << 20
