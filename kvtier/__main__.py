"""``python -m kvtier``."""

import sys

from kvtier.cli import main

sys.exit(main())
