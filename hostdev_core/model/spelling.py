"""What was probably meant by a name that nobody knows; for messages only."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: "Iterable[str]", cutoff: float = 0.6) -> str | None:
    """Find the known name that is spelt most like this one, whatever its case; None where none is near.

    `cutoff` is that of difflib.get_close_matches: 0 takes anything, 1 only the same letters.
    """
    from difflib import (
        get_close_matches,
    )  # here: it takes longer than most commands, and few need it

    spelt = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), spelt, n=1, cutoff=cutoff)
    return spelt[near[0]] if near else None


def one_letter_off(word: str, known: "Iterable[str]") -> str | None:
    """Find the first known name that one letter tells from this one; None where there is none.

    For addresses: they all look alike, so that difflib would take any for any.
    """
    alike = (name for name in known if len(name) == len(word))
    return next((n for n in alike if sum(a != b for a, b in zip(n, word, strict=True)) == 1), None)
