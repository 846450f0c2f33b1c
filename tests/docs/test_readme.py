"""README.md: its backend is a real one; tests/docs runs what stands there."""

import re

from tests.docs.pages import PRINTS, ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_is_code() -> None:
    assert len(BLOCKS) == 2
    assert PRINTS.findall(BLOCKS[0])


def test_the_backend_is_the_one_of_the_examples() -> None:
    (backend,) = (block for block in BLOCKS if "class " in block)
    example = (ROOT / "examples" / "own_backend.py").read_text()
    body = backend[backend.index("class ") :]
    assert body in example
    assert len(backend.splitlines()) <= 30
