"""The public API is what docs/api.txt says: it changes on purpose only."""

import difflib

from tests.api import LISTING, describe


def test_the_public_api_is_the_one_that_is_written_down() -> None:
    written, now = LISTING.read_text(encoding="utf-8"), describe()
    difference = difflib.unified_diff(
        written.splitlines(), now.splitlines(), "docs/api.txt", "the code", lineterm="", n=0
    )
    assert written == now, (
        'the public API changed. On purpose? Then see "Changes of the API" in CONTRIBUTING.md, and'
        " run `python -m tests.api --write`:\n" + "\n".join(difference)
    )
