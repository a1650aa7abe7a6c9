"""Stores of third parties that exist in one colour, made usable from both adapters.

A store of plain functions runs in a thread of its own under ASGI (`threads.py`) and directly under WSGI.
A store of coroutines that need an event loop runs directly under ASGI, and under WSGI on a loop of its
own for each call (asgiref): slower, and its author's to document, but the same contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from .base import ANY, Expect, Record, Store
from .threads import Threads

T = TypeVar("T")


class BridgedStore:
    """A `Store` over an object with the same methods in one colour."""

    colour = "both"

    def __init__(self, inner: Any, *, colour: str, blocking: bool) -> None:  # noqa: ANN401 - either colour
        self.inner = inner
        self._colour = colour
        self._blocking = blocking
        self._threads = Threads(type(inner).__name__)
        if hasattr(inner, "stamp"):
            self.stamp = inner.stamp
        if hasattr(inner, "watch"):
            self.watch = inner.watch
        if hasattr(inner, "put_all"):
            self.put_all = partial(self._call, inner.put_all)

    async def _call(self, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - either colour
        if self._colour == "sync":
            if self._blocking:
                return function(*args, **kwargs)
            return await self._threads.run(partial(function, *args, **kwargs))
        if self._blocking:
            from asgiref.sync import async_to_sync  # of use to few: loaded when it is

            return async_to_sync(_awaiting(function))(*args, **kwargs)
        return await function(*args, **kwargs)

    async def open(self) -> None:
        await self._call(self.inner.open)

    async def close(self) -> None:
        await self._call(self.inner.close)

    async def get(self, key: str) -> Record | None:
        record: Record | None = await self._call(self.inner.get, key)
        return record

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        version: int = await self._call(self.inner.put, key, value, expires_at=expires_at, expect=expect)
        return version

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        found: bool = await self._call(self.inner.delete, key, expect=expect)
        return found

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        for item in await self._call(self._all, prefix):
            yield item

    def _all(self, prefix: str) -> Any:  # noqa: ANN401 - either colour
        if self._colour == "sync":
            return list(self.inner.scan(prefix))
        return _collect(self.inner.scan(prefix))

    async def purge(self, now: float) -> int:
        dropped: int = await self._call(self.inner.purge, now)
        return dropped


def _awaiting(function: Callable[..., Awaitable[T]]) -> Callable[..., Any]:
    async def call(*args: object, **kwargs: object) -> T:
        return await function(*args, **kwargs)

    return call


async def _collect(source: AsyncIterator[tuple[str, Record]]) -> list[tuple[str, Record]]:
    return [item async for item in source]


def bridge(store: Any, *, blocking: bool) -> Store:  # noqa: ANN401 - either colour
    """`store` itself when it serves this colour, else a bridge to it."""
    colour = getattr(store, "colour", "async")
    if colour == "both" or (colour == "async" and not blocking):
        plain: Store = store
        return plain
    return BridgedStore(store, colour=colour, blocking=blocking)
