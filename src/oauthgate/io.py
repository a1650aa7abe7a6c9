"""The one seam between the core and the world that runs it.

The core awaits these and nothing else. `AsyncIO` (under ASGI) really suspends; `BlockingIO` (under
WSGI) does blocking work behind the same `async def`, so that the core can be stepped (`stepping.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

import httpx2

T = TypeVar("T")


class Heartbeat(NamedTuple):
    """Something to do every `every` seconds while an answer is outstanding."""

    every: float
    beat: Callable[[], Coroutine[Any, Any, None]]


class Reply:
    """One answer, read whole and decoded. `raw_headers` are its header fields as they came."""

    __slots__ = ("_headers", "content", "raw_headers", "status_code")

    def __init__(self, status_code: int, raw_headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        self.status_code = status_code
        self.raw_headers = raw_headers
        self.content = content
        self._headers: httpx2.Headers | None = None

    def __repr__(self) -> str:
        return f"Reply({self.status_code})"

    @property
    def headers(self) -> httpx2.Headers:
        """The header fields by name; most answers are never asked for them."""
        if self._headers is None:
            self._headers = httpx2.Headers(self.raw_headers)
        return self._headers


class IO(Protocol):
    """What differs between an event loop and a thread."""

    blocking: bool

    async def exchange(
        self,
        pool: str,
        request: httpx2.Request,
        *,
        deadline: float,
        limit: int,
        heartbeat: Heartbeat | None = None,
    ) -> Reply:
        """Send one request on the connections of `pool`, read the answer whole, follow nothing.

        `deadline` bounds the whole exchange in seconds, `limit` the decoded body in bytes;
        `heartbeat` is awaited every so often while the answer is outstanding. Raises
        `httpx2.TimeoutException`, another `httpx2.HTTPError`, or `BodyTooLarge`.
        """

    def transport(self, pool: str) -> httpx2.BaseTransport | httpx2.AsyncBaseTransport:
        """The pooled transport that the service clients of `pool` share."""

    def trust(self, hosts: frozenset[str]) -> None:
        """Let connections to these configured hosts reach private addresses (see `addresses.py`)."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Mutual exclusion by key in this process (and event loop)."""

    async def shield(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when the caller is cancelled because its client went away."""

    async def call(self, hook: Callable[..., object], *args: object) -> object:
        """Call a function of the application's, of either colour."""

    async def close(self) -> None:
        """Finish shielded work and let go of connections."""


class BodyTooLarge(httpx2.HTTPError):
    """The answer's decoded body is larger than the limit."""


class AddressRefused(httpx2.ConnectError):
    """A host that the configuration does not name resolved to an address that is not public."""
