"""The `oauthgate` command, for whoever runs a site: docs/operating.md.

Everything it does goes through the same store, secrets and rules as the site, which may serve meanwhile.
"""

from __future__ import annotations

from .main import main

__all__ = ["main"]
