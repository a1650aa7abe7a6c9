"""The smallest stores a third party could write, each in one colour only, for the bridge to carry.

Both keep their records in a dictionary by place, as two workers of a site would share an engine.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from oauthgate.errors import Conflict
from oauthgate.stores import ABSENT, ANY, Expect, Record, Write


class Engine:
    """What both toys stand on: one dictionary and one lock."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.lock = threading.Lock()

    def live(self, key: str) -> Record | None:
        found = self.records.get(key)
        if found is None or (found.expires_at is not None and found.expires_at <= time.time()):
            return None
        return found

    def put(self, key: str, value: bytes, expires_at: float | None, expect: Expect) -> int:
        with self.lock:
            self._check(key, expect)
            version = secrets.randbits(60)
            self.records[key] = Record(value, version, expires_at)
            return version

    def put_all(self, writes: Sequence[Write]) -> list[int]:
        with self.lock:
            for write in writes:
                self._check(write.key, write.expect)
            fresh = [Record(write.value, secrets.randbits(60), write.expires_at) for write in writes]
            self.records.update(zip((write.key for write in writes), fresh, strict=True))
            return [record.version for record in fresh]

    def delete(self, key: str, expect: Expect) -> bool:
        with self.lock:
            self._check(key, expect)
            found = self.live(key)
            self.records.pop(key, None)
            return found is not None

    def _check(self, key: str, expect: Expect) -> None:
        held = self.live(key)
        if expect is ABSENT:
            if held is not None:
                raise Conflict("there is one")
        elif expect is not ANY and (held is None or held.version != expect):
            raise Conflict("another version")

    def purge(self, now: float) -> int:
        with self.lock:
            dead = [
                key
                for key, record in self.records.items()
                if record.expires_at is not None and record.expires_at <= now
            ]
            for key in dead:
                del self.records[key]
            return len(dead)


class SyncOnlyStore:
    """Plain functions."""

    colour = "sync"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to let go of."""

    def get(self, key: str) -> Record | None:
        return self.engine.live(key)

    def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        return self.engine.put(key, value, expires_at, expect)

    def put_all(self, writes: Sequence[Write]) -> list[int]:
        return self.engine.put_all(writes)

    def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        return self.engine.delete(key, expect)

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        for key in list(self.engine.records):
            if key.startswith(prefix) and (found := self.engine.live(key)) is not None:
                yield key, found

    def purge(self, now: float) -> int:
        return self.engine.purge(now)


class AsyncOnlyStore:
    """Coroutines that really suspend: they need an event loop."""

    colour = "async"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def get(self, key: str) -> Record | None:
        await asyncio.sleep(0)
        return self.engine.live(key)

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        await asyncio.sleep(0)
        return self.engine.put(key, value, expires_at, expect)

    async def put_all(self, writes: Sequence[Write]) -> list[int]:
        await asyncio.sleep(0)
        return self.engine.put_all(writes)

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        await asyncio.sleep(0)
        return self.engine.delete(key, expect)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        for key in list(self.engine.records):
            await asyncio.sleep(0)
            if key.startswith(prefix) and (found := self.engine.live(key)) is not None:
                yield key, found

    async def purge(self, now: float) -> int:
        await asyncio.sleep(0)
        return self.engine.purge(now)
