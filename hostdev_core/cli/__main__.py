"""`python -m hostdev_core.cli`."""

import sys

from hostdev_core.cli import main

sys.exit(main())
