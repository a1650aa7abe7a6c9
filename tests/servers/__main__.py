"""`python -m tests.servers`: install what the node servers need, as `make test` does."""

from __future__ import annotations

import sys

from .processes import Missing, ensure_node_modules

try:
    ensure_node_modules()
except Missing as missing:
    sys.exit(str(missing))
