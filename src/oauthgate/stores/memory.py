"""A store in this process's memory, for tests and demonstrations: gone when the process ends."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable

from ..errors import Conflict
from .base import ABSENT, ANY, Expect, Record


class MemoryStore:
    """`memory:` gives every gate a store of its own; `memory:NAME` shares one by name in a process."""

    colour = "both"
    in_process = True
    _shared: dict[str, MemoryStore] = {}  # noqa: RUF012 - one registry a process is its purpose

    def __new__(cls, url: str = "memory:", *, blocking: bool = False) -> MemoryStore:
        name = url.partition(":")[2]
        if not name:
            return super().__new__(cls)
        if name not in cls._shared:
            cls._shared[name] = super().__new__(cls)
        return cls._shared[name]

    def __init__(self, url: str = "memory:", *, blocking: bool = False) -> None:
        if hasattr(self, "_records"):
            return
        self._records: dict[str, Record] = {}
        self._stamp = 0
        self._lock = threading.Lock()
        self.clock: Callable[[], float] = time.time

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of: the records stay until the process ends."""

    def stamp(self, key: str) -> int:
        """See `base.Stamped`: of all records."""
        return self._stamp

    def _live(self, key: str) -> Record | None:
        record = self._records.get(key)
        if record is None or (record.expires_at is not None and record.expires_at <= self.clock()):
            return None
        return record

    async def get(self, key: str) -> Record | None:
        return self._live(key)

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        with self._lock:
            held = self._live(key)
            if expect is ABSENT:
                if held is not None:
                    raise Conflict(f"{_kind(key)} exists already")
            elif expect is not ANY and (held is None or held.version != expect):
                raise Conflict(f"{_kind(key)} was changed by another writer")
            version = held.version + 1 if held else secrets.randbits(52)
            self._records[key] = Record(value, version, expires_at)
            self._stamp += 1
            return version

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        with self._lock:
            held = self._live(key)
            if held is None:
                self._records.pop(key, None)
                if isinstance(expect, int):
                    raise Conflict(f"{_kind(key)} is gone already")
                return False
            if isinstance(expect, int) and held.version != expect:
                raise Conflict(f"{_kind(key)} was changed by another writer")
            del self._records[key]
            self._stamp += 1
            return True

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        for key in list(self._records):
            if key.startswith(prefix) and (record := self._live(key)) is not None:
                yield key, record

    async def purge(self, now: float) -> int:
        with self._lock:
            dead = [
                key
                for key, record in self._records.items()
                if record.expires_at is not None and record.expires_at <= now
            ]
            for key in dead:
                del self._records[key]
            return len(dead)


def _kind(key: str) -> str:
    # A key may hold a hash that names a person: errors speak of the kind of record only.
    return f"the record {key.partition('/')[0]}/…"
