"""Asking whether the users in use are as they were: all of them at once, beside the requests.

Owns: `Recheck`, what one event loop knows by it, and `rechecking`, the task. It is for an engine that
reads many versions in one round trip. A process then asks twice in `near_cache` seconds, however many
requests there are, and not at all while there are none. Nothing has to be told by the engine, so nothing
can be missed: a version that was read is what holds from when it was asked for, and for `within`
seconds.

Why PostgreSQL is asked in this way and does not tell (LISTEN, NOTIFY) is in docs/decisions.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

#: Seconds for which a record is asked for after it was last of use.
KEEP = 5.0
#: Records that are asked for at once; of more, those that were of use last.
LIMIT = 1000


class Recheck:
    """The versions that records had a moment ago. `within` and `clock` (`time.monotonic`) in seconds."""

    def __init__(self, within: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.within = within
        self.clock = clock
        # When a record was last of use, the latest one last; and when it had which version.
        self._used: dict[str, float] = {}
        self._known: dict[str, tuple[float, object]] = {}

    @property
    def beat(self) -> float:
        """Seconds between two questions: an answer may take as long again."""
        return max(0.05, min(self.within / 2, 2.0))

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`: a version never returns, so it is a stamp."""
        now = self.clock()
        self._used.pop(key, None)
        self._used[key] = now
        if len(self._used) > LIMIT:
            self._forget(next(iter(self._used)))
        asked, version = self._known.get(key, (float("-inf"), None))
        return version if now < asked + self.within else None

    def used(self) -> list[str]:
        """What is to be asked for; what was of no use for a while is forgotten."""
        since = self.clock() - KEEP
        for key in [key for key, at in self._used.items() if at < since]:
            self._forget(key)
        return list(self._used)

    def found(self, asked: float, keys: Sequence[str], versions: Mapping[str, int]) -> None:
        """The answer to a question that was sent at `asked`; what is not in it does not exist."""
        for key in keys:
            if key in self._used:
                # What is gone has a stamp that nothing was ever read with, so that it is read anew.
                self._known[key] = (asked, versions[key] if key in versions else object())

    def lost(self) -> None:
        self._known.clear()

    @property
    def alive(self) -> bool:
        return bool(self._known)

    def _forget(self, key: str) -> None:
        self._used.pop(key, None)
        self._known.pop(key, None)


def rechecking(
    versions: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]],
) -> Callable[[Recheck], Awaitable[None]]:
    """What keeps a `Recheck` up to date (`Watches`); `versions` raises `StoreError`."""

    async def follow(recheck: Recheck) -> None:
        while True:
            asked = recheck.clock()
            keys = recheck.used()
            if keys:
                recheck.found(asked, keys, await versions(keys))
            await asyncio.sleep(max(0.01, asked + recheck.beat - recheck.clock()))

    return follow
