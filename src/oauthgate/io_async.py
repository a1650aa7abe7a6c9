"""`AsyncIO`: the core's leaves on an event loop.

Everything that belongs to a loop (connections, locks, running tasks) is kept per running loop: a test
client that makes a loop for each request, and a server that forks after import, must both just work.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

import httpcore2
import httpx2
from asgiref.sync import sync_to_async

from . import io_streams
from .io import BodyTooLarge, Heartbeat, Reply
from .io_transport import (
    KEEPALIVE,
    MAX_CONNECTIONS,
    MAX_IDLE_CONNECTIONS,
    POOL_ERRORS,
    Trust,
    as_httpcore2,
    as_httpx2,
    as_reply,
    check_addresses,
    has_strays,
    tls_context,
)
from .loop_end import at_loop_end

T = TypeVar("T")

#: Seconds that a token request under way is given to end when the server stops.
SHIELDED_GRACE = 15.0


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the addresses that were checked, and to no other."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise httpcore2.ConnectTimeout("name resolution took too long") from None
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError(f"{host} cannot be resolved") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        last: httpcore2.ConnectError | None = None
        for address in check_addresses(host, addresses, self._trust.hosts):
            try:
                return await io_streams.connect(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                last = error
        raise last or httpcore2.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Connection(httpcore2.AsyncHTTPConnection):
    def has_expired(self) -> bool:
        return super().has_expired() or (self.is_idle() and has_strays(self))


class _Pool(httpcore2.AsyncConnectionPool):
    """A pool whose connections are guarded, and not used again when something is wrong with them."""

    def __init__(self, trust: Trust) -> None:
        self._backend = _GuardedBackend(trust)
        super().__init__(
            ssl_context=tls_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._backend,
        )

    def create_connection(self, origin: httpcore2.Origin) -> _Connection:
        return _Connection(
            origin,
            ssl_context=tls_context(),
            keepalive_expiry=KEEPALIVE,
            network_backend=self._backend,
        )

    async def _close_connections(self, closing: list[httpcore2.AsyncConnectionInterface]) -> None:
        # Asked for twice in each call, nearly always with nothing to close, and then for a cancel scope.
        if closing:
            await super()._close_connections(closing)


class _Transport(httpx2.AsyncHTTPTransport):
    """httpx2's transport over a pool of ours."""

    def __init__(self, trust: Trust) -> None:
        self._pool = _Pool(trust)

    async def whole(self, request: httpx2.Request, limit: int) -> Reply:
        """One exchange, past what httpx2 keeps of an answer for a handler."""
        try:
            answer = await self._pool.handle_async_request(as_httpcore2(request))
            try:
                body = await _collected(answer.aiter_stream(), limit)
            finally:
                await answer.aclose()
        except POOL_ERRORS as error:
            raise as_httpx2(error) from None
        return as_reply(answer.status, answer.headers, body, limit)


async def _whole(transport: httpx2.AsyncBaseTransport, request: httpx2.Request, limit: int) -> Reply:
    answer = await transport.handle_async_request(request)
    try:
        body = await _collected(answer.aiter_raw(), limit)
    finally:
        await answer.aclose()
    return as_reply(answer.status_code, answer.headers.raw, body, limit)


async def _collected(chunks: AsyncGenerator[bytes], limit: int) -> bytes:
    collected: list[bytes] = []
    size = 0
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"more than {limit} bytes")
            collected.append(chunk)
    return b"".join(collected)


def _aiohttp() -> Callable[[Trust], httpx2.AsyncBaseTransport]:
    # Imported where it is wanted: aiohttp is an extra, and a fifth of a second.
    from .io_aiohttp import AiohttpTransport

    return AiohttpTransport


class _Loop:
    """What belongs to one event loop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.pools: dict[str, httpx2.AsyncBaseTransport] = {}
        self.locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.end = at_loop_end(self.close)

    async def close(self) -> None:
        """Let what is shielded finish, then close connections."""
        if self.tasks:
            await asyncio.wait(set(self.tasks), timeout=SHIELDED_GRACE)
        pools, self.pools = self.pools, {}
        for pool in pools.values():
            await pool.aclose()


class AsyncIO:
    """See `io.IO`."""

    blocking = False

    def __init__(self, transport: str = "httpx2") -> None:
        """`transport` is "httpx2", or "aiohttp" where the extra of that name is installed."""
        self._trust = Trust()
        self._make: Callable[[Trust], httpx2.AsyncBaseTransport] = (
            _Transport if transport == "httpx2" else _aiohttp()
        )
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = (
            weakref.WeakKeyDictionary()
        )

    def trust(self, hosts: frozenset[str]) -> None:
        self._trust.hosts |= hosts

    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None or state.pid != os.getpid():
            state = self._loops[loop] = _Loop()
        return state

    def transport(self, pool: str) -> httpx2.AsyncBaseTransport:
        pools = self._here().pools
        found = pools.get(pool)
        if found is None:
            found = pools[pool] = self._make(self._trust)
        return found

    async def exchange(
        self,
        pool: str,
        request: httpx2.Request,
        *,
        deadline: float,
        limit: int,
        heartbeat: Heartbeat | None = None,
    ) -> Reply:
        if heartbeat is None:
            return await self._exchange(pool, request, deadline, limit)
        task = asyncio.ensure_future(self._exchange(pool, request, deadline, limit))
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=heartbeat.every)
                if done:
                    return task.result()
                await heartbeat.beat()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})  # until it has let go of its connection

    async def _exchange(self, pool: str, request: httpx2.Request, deadline: float, limit: int) -> Reply:
        transport = self.transport(pool)
        try:
            async with asyncio.timeout(deadline):
                if isinstance(transport, _Transport):
                    return await transport.whole(request, limit)
                return await _whole(transport, request, limit)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer within {deadline:g} s") from None

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        locks = self._here().locks
        lock, users = locks.get(key, (asyncio.Lock(), 0))
        locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = locks[key]
            if users == 1:
                del locks[key]
            else:
                locks[key] = (lock, users - 1)

    async def shield(self, work: Coroutine[Any, Any, T]) -> T:
        state = self._here()
        task = asyncio.ensure_future(work)
        # The loop itself holds tasks weakly: without this reference a cancelled caller could take
        # the token request with it.
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)
        return await asyncio.shield(task)

    async def call(self, hook: Callable[..., object], *args: object) -> object:
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
            return await cast("Awaitable[object]", hook(*args))
        result = await sync_to_async(hook, thread_sensitive=False)(*args)
        # An object with an async `__call__`, or a lambda around a coroutine: not awaiting it would
        # skip what a hook may refuse.
        return await result if inspect.isawaitable(result) else result

    async def close(self) -> None:
        await self._here().close()
