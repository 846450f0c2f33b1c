"""A plugin for pytest: when the tests have ended, so does the process.

With a mutation a thread may wait for ever, and the process with it, although all has been said.
"""

import os
import sys

import pytest

_status = [0]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Keep how the tests ended."""
    _status[0] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """End, with all said."""
    sys.stdout.flush()
    os._exit(_status[0])
