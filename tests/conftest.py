"""For all tests: what is installed beside hostdev is no matter of theirs, nor how fast the machine is."""

import os

from hypothesis import HealthCheck, settings

os.environ["HOSTDEV_DISABLE_PLUGINS"] = "audit,ch,guard"
settings.register_profile("hostdev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hostdev")
