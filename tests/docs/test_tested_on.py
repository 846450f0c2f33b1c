"""docs/tested-on.md has the form that a run of the kernel lab gives it: nobody has written into it."""

import re
from datetime import date
from pathlib import Path

from tests.docs.pages import ROOT
from tests.kernel import tested_on

PAGE = ROOT / "docs" / "tested-on.md"
ROWS = tested_on.read(PAGE)
VERSION = r"\d+(\.\d+)+"


def test_a_run_would_write_it_as_it_is(tmp_path: Path) -> None:
    tested_on.write(tmp_path / "page.md", ROWS)
    assert (tmp_path / "page.md").read_text() == PAGE.read_text()
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_each_row_tells_of_a_run() -> None:
    for row in ROWS:
        date.fromisoformat(row.date)
        assert re.fullmatch(rf"({VERSION} )?\(Debian .+\)", row.kernel), row
        tools = "|".join(name for name in tested_on.NAMES.values() if name != "none")
        assert re.fullmatch(rf"none|({tools})( {VERSION})?", row.tool), row
        assert re.fullmatch(r"\d+ passed(, failed: .+)?|not run: .+", row.result), row
        if row.result.endswith("passed"):
            assert re.match(VERSION, row.kernel), row
            assert row.tool == "none" or re.search(VERSION, row.tool), row


def test_it_is_one_of_the_pages() -> None:
    assert ROWS
    assert '"tested-on"' in (ROOT / "docs" / "conf.py").read_text()
    assert "(tested-on.md)" in (ROOT / "docs" / "index.md").read_text()
