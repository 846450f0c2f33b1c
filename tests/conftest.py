"""For all tests: what is installed beside hostdev is no matter of theirs."""

import os

os.environ["HOSTDEV_DISABLE_PLUGINS"] = "audit,ch,guard"
