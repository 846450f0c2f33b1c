"""Laying out: what fits stays as it is, what is cut or folded is never wider than it may be."""

from hypothesis import given
from hypothesis import strategies as st

from hostdev_core.cli.fitting import cut, fold, width_of
from hostdev_core.cli.layout import Column, lay_out, plain

TEXTS = st.text(st.sampled_from("ab 名́"), max_size=40).map(lambda text: " ".join(text.split()))
KEEP = st.sampled_from(["start", "end", "both"])
COLUMNS = st.builds(
    Column, st.sampled_from(["ADDRESS", "N"]), st.integers(0, 20), KEEP, st.booleans()
)


@given(TEXTS, st.integers(1, 50), KEEP)
def test_a_cut_text_fits_and_says_that_it_is_cut(text: str, width: int, keep: str) -> None:
    shown = cut(text, width, keep)
    assert width_of(shown) <= width
    if width_of(text) <= width:
        assert shown == text
    else:
        begin, mark, end = shown.partition("…")
        assert mark
        assert text.startswith(begin)
        assert text.endswith(end)


@given(TEXTS, st.integers(4, 60))
def test_a_folded_text_loses_nothing(text: str, width: int) -> None:
    lines = fold(text, width)
    assert max(map(width_of, lines)) <= width
    if width_of(text) <= width:
        assert lines == [text]
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(
    st.lists(COLUMNS, min_size=1, max_size=5).flatmap(
        lambda columns: st.tuples(
            st.just(columns),
            st.lists(st.lists(TEXTS, min_size=len(columns), max_size=len(columns)), max_size=5),
        )
    ),
    st.integers(20, 120),
    st.booleans(),
)
def test_a_table_fits(
    table: tuple[list[Column], list[list[str]]], width: int, guides: bool
) -> None:
    columns, rows = table
    lines = [plain(line) for line in lay_out(columns, [("a heading", rows)], width, guides=guides)]
    assert max(map(width_of, lines)) <= width
    assert len(lines) == len(rows) + 2
    whole = [plain(line) for line in lay_out(columns, [("", rows)], None, guides=False)]
    assert [line.split() for line in whole] == [
        [word for cell in row for word in cell.split()]
        for row in [[c.title for c in columns], *rows]
    ]


def test_a_column_is_left_out_before_others_lose_more() -> None:
    columns = [Column("ADDRESS", 12), Column("IDS", 9, optional=True), Column("STATE", 10)]
    rows = [["0000:01:00.0", "8086:10d3", "lent to vm1"]]
    assert [len(line[1]) for line in lay_out(columns, [("", rows)], 30, guides=False)] == [2, 2]
    assert [len(line[1]) for line in lay_out(columns, [("", rows)], 40, guides=False)] == [3, 3]
