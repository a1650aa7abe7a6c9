"""The process that dies: serves one request of a site whose store ends the process at its n-th write.

`os._exit` runs no clean-up, as `kill -9` does: what SQLite has not been told to keep is gone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from oauthgate.stores import ANY, Expect, Write
from tests.support import Kind, site_under_test

from .steps import CountingStore

#: Exit status of a process that died as it was told.
KILLED = 9


class FatalStore(CountingStore):
    """Ends the process right after its `fatal`-th write, or right before the first one for 0."""

    fatal = 0

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        if self.fatal == 0:
            os._exit(KILLED)
        version = await super().put(key, value, expires_at=expires_at, expect=expect)
        self._die()
        return version

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        if self.fatal == 0:
            os._exit(KILLED)
        found = await super().delete(key, expect=expect)
        self._die()
        return found

    def _die(self) -> None:
        if self.writes >= self.fatal:
            os._exit(KILLED)


class FatalBatchingStore(FatalStore):
    """The same, with what belongs together as one write."""

    async def put_all(self, writes: Sequence[Write]) -> list[int]:
        if self.fatal == 0:
            os._exit(KILLED)
        self.count["put"] += 1
        inner: Any = self.inner
        versions: list[int] = await inner.put_all(writes)
        self._die()
        return versions


def serve_once(
    kind: Kind, config: dict[str, Any], fatal: int, request: dict[str, Any], together: bool
) -> None:
    """Answer one request; exit with `KILLED` at the write, with 0 when there were fewer of them."""
    with site_under_test(kind, config) as site:
        store = (FatalBatchingStore if together else FatalStore)(site.gate.vault.store)
        store.fatal = fatal
        site.gate.vault.store = store
        answer = site.browser().request(**request)
        os._exit(0 if answer.status_code in (200, 303) else 1)
