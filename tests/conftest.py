"""For all tests: what is installed beside hostdev is no matter of theirs, nor how fast the machine is.

Examples are the same each time, so that a red test is its change's fault; with HOSTDEV_EXAMPLES=500 in
the environment they are others each time, and the stories of tests/flow/test_machine.py that many.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

os.environ["HOSTDEV_DISABLE_PLUGINS"] = "audit,ch,guard"
settings.register_profile(
    "hostdev",
    deadline=None,
    derandomize="HOSTDEV_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hostdev")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter: pytest closes its own to others, whenever it starts."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
