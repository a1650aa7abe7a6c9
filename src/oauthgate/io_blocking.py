"""`BlockingIO`: the core's leaves as blocking calls on the calling thread.

Each method is an `async def` that never suspends, so the core can be stepped through it. Connections
are kept per process id: a server that forks after import must not share sockets with its children.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import httpcore2
import httpx2
from asgiref.sync import async_to_sync

from . import io_sockets
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
    deadline_at,
    has_strays,
    tls_context,
)

T = TypeVar("T")


class _GuardedBackend(httpcore2.NetworkBackend):
    """Connects to the addresses that were checked, and to no other."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError(f"{host} cannot be resolved") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        last: httpcore2.ConnectError | None = None
        for address in check_addresses(host, addresses, self._trust.hosts):
            try:
                return io_sockets.connect(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                last = error
        raise last or httpcore2.ConnectError(f"{host} has no address")


class _Connection(httpcore2.HTTPConnection):
    def has_expired(self) -> bool:
        return super().has_expired() or (self.is_idle() and has_strays(self))


class _Pool(httpcore2.ConnectionPool):
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


class _Transport(httpx2.HTTPTransport):
    """httpx2's transport over a pool of ours."""

    def __init__(self, trust: Trust) -> None:
        self._pool = _Pool(trust)

    def whole(self, request: httpx2.Request, limit: int) -> Reply:
        """One exchange, past what httpx2 keeps of an answer for a handler."""
        try:
            answer = self._pool.handle_request(as_httpcore2(request))
            try:
                chunks: list[bytes] = []
                size = 0
                for chunk in answer.iter_stream():
                    size += len(chunk)
                    if size > limit:
                        raise BodyTooLarge(f"more than {limit} bytes")
                    chunks.append(chunk)
            finally:
                answer.close()
        except POOL_ERRORS as error:
            raise as_httpx2(error) from None
        return as_reply(answer.status, answer.headers, b"".join(chunks), limit)


_instances: weakref.WeakSet[BlockingIO] = weakref.WeakSet()


def _after_fork() -> None:
    for io in list(_instances):
        io.forget_parent()


os.register_at_fork(after_in_child=_after_fork)


class BlockingIO:
    """See `io.IO`."""

    blocking = True

    def __init__(self) -> None:
        self._trust = Trust()
        self._pools: dict[str, _Transport] = {}
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()
        # An application that is dropped (a test's, say) leaves no open sockets behind.
        weakref.finalize(self, _close_pools, self._pools)
        _instances.add(self)

    def trust(self, hosts: frozenset[str]) -> None:
        self._trust.hosts |= hosts

    def forget_parent(self) -> None:
        """In a forked child, before anything else runs: nothing is shared with the parent.

        A fork may happen while another thread holds a lock, so all of them are made anew; the parent's
        connections are let go of without a word on them.
        """
        self._guard = threading.Lock()
        self._locks = {}
        self._pools.clear()

    def transport(self, pool: str) -> _Transport:
        found = self._pools.get(pool)
        if found is None:
            with self._guard:
                found = self._pools.setdefault(pool, _Transport(self._trust))
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
        transport = self.transport(pool)
        # The wait for a free connection counts too.
        request.extensions = {**request.extensions, "timeout": {"pool": deadline, "connect": deadline}}
        token = deadline_at.set(time.monotonic() + deadline)
        beating = io_sockets.heartbeat_at.set(heartbeat)
        try:
            return transport.whole(request, limit)
        finally:
            deadline_at.reset(token)
            io_sockets.heartbeat_at.reset(beating)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                _, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)

    async def shield(self, work: Coroutine[Any, Any, T]) -> T:
        # Nothing can cancel a thread that runs blocking code.
        return await work

    async def call(self, hook: Callable[..., object], *args: object) -> object:
        result = hook(*args)
        if inspect.isawaitable(result):
            # Whatever spelling makes a coroutine: not awaiting it would skip what a hook may refuse.
            return async_to_sync(_awaited)(result)
        return result

    async def close(self) -> None:
        _close_pools(self._pools)


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _close_pools(pools: dict[str, _Transport]) -> None:
    while pools:
        _, pool = pools.popitem()
        pool.close()
