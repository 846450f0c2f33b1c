"""Looks at a machine that fail, for `Host.watch_reads`."""

import os


class Nth:
    """Lets the n-th look fail, once, with an errno; of those only that have one of `words` in them."""

    def __init__(self, number: int, failure: int, *words: str) -> None:
        self.left, self.failure, self.words = number, failure, words
        self.hit: str | None = None

    def __call__(self, told: str) -> None:
        if self.words and not any(word in told for word in self.words):
            return
        self.left -= 1
        if self.left == 0:
            self.hit = told
            raise OSError(self.failure, os.strerror(self.failure))
