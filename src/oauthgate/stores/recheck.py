"""Asking whether the users in use are as they were: all of them at once, for all requests.

Owns: `Recheck`, what one event loop knows by it, or without one a process, and who asks: `rechecking`, a
task beside the requests, or with `due` the requests themselves. It is for an engine that reads many
versions in one round trip. A process then asks once or twice in `near_cache` seconds, however many
requests there are, and not at all while there are none. Nothing has to be told by the engine, so nothing
can be missed: a version that was read is what holds from when it was asked for, and for `within`
seconds.

Without an event loop there is neither task nor thread. There a read that has to be made anyway carries
the question along, in the same round trip, when the last one is older than a beat (`Carried`).

Why PostgreSQL is asked in this way and does not tell (LISTEN, NOTIFY) is in docs/decisions.md.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

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
        self._asked = float("-inf")
        # Under WSGI the threads of a process share it.
        self._lock = threading.Lock()

    @property
    def beat(self) -> float:
        """Seconds between two questions: an answer may take as long again."""
        return max(0.05, min(self.within / 2, 2.0))

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`: a version never returns, so it is a stamp."""
        now = self.clock()
        with self._lock:
            self._used.pop(key, None)
            self._used[key] = now
            if len(self._used) > LIMIT:
                self._forget(next(iter(self._used)))
            asked, version = self._known.get(key, (float("-inf"), None))
        return version if now < asked + self.within else None

    def due(self) -> bool:
        """Whether the caller is to ask now; nobody else is told so within a beat."""
        now = self.clock()
        if now < self._asked + self.beat:
            return False
        with self._lock:
            if now < self._asked + self.beat:
                return False  # another thread was faster
            self._asked = now
        return True

    def used(self) -> list[str]:
        """What is to be asked for; what was of no use for a while is forgotten."""
        since = self.clock() - KEEP
        with self._lock:
            for key in [key for key, at in self._used.items() if at < since]:
                self._forget(key)
            return list(self._used)

    def found(self, asked: float, keys: Sequence[str], versions: Mapping[str, int]) -> None:
        """The answer to a question that was sent at `asked`; what is not in it does not exist."""
        with self._lock:
            for key in keys:
                if key in self._used and self._known.get(key, (asked,))[0] <= asked:
                    # What is gone has a stamp that nothing was ever read with, so that it is read anew.
                    self._known[key] = (asked, versions[key] if key in versions else object())

    def lost(self) -> None:
        with self._lock:
            self._known.clear()

    @property
    def alive(self) -> bool:
        return bool(self._known)

    def _forget(self, key: str) -> None:
        self._used.pop(key, None)
        self._known.pop(key, None)


class Question(NamedTuple):
    """What a read is to ask for besides: the versions of `keys`. The answer goes to `recheck.found`."""

    recheck: Recheck
    asked: float
    keys: Sequence[str]


class Carried:
    """One `Recheck` for all threads of a process, kept up to date by its reads (`watch.Watches` is its
    counterpart where there is an event loop). Nothing is done before `start`."""

    def __init__(self) -> None:
        self._within = 0.0
        self._pid = 0
        self._recheck: Recheck | None = None

    def start(self, within: float) -> None:
        """Let stamps hold for `within` seconds after they were asked for; the least of several."""
        self._within = min(within, self._within or within)

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`."""
        if not self._within:
            return None
        recheck = self._recheck
        if recheck is None or self._pid != os.getpid():
            # A forked child begins anew: another thread may have held the lock of the one of before.
            recheck = self._recheck = Recheck(self._within)
            self._pid = os.getpid()
        return recheck.stamp(key)

    def question(self) -> Question | None:
        """What the read that is about to be made is to carry, if anything."""
        recheck = self._recheck
        if recheck is None or self._pid != os.getpid() or not recheck.due():
            return None
        asked = recheck.clock()
        keys = recheck.used()
        return Question(recheck, asked, keys) if keys else None


class Rechecking(Protocol):
    """Keeps a `Recheck` up to date until a time of its clock, or until that fails."""

    def __call__(self, recheck: Recheck, until: float = ..., /) -> Awaitable[None]: ...


def rechecking(versions: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]) -> Rechecking:
    """By asking with `versions`, which raises `StoreError`."""

    async def follow(recheck: Recheck, until: float = float("inf"), /) -> None:
        while recheck.clock() < until:
            asked = recheck.clock()
            keys = recheck.used()
            if keys:
                recheck.found(asked, keys, await versions(keys))
            await asyncio.sleep(max(0.01, asked + recheck.beat - recheck.clock()))

    return follow
