"""`BlockingIO`: the core's leaves as blocking calls on the calling thread.

Each method is an `async def` that never suspends, so the core can be stepped through it. Connections
are kept per process id: a server that forks after import must not share sockets with its children.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

import httpcore2
import httpx2
from asgiref.sync import async_to_sync

from .io import BodyTooLarge, Heartbeat
from .io_transport import (
    KEEPALIVE,
    MAX_CONNECTIONS,
    MAX_IDLE_CONNECTIONS,
    Trust,
    as_response,
    check_addresses,
    deadline_at,
    remaining,
    tls_context,
)
from .stepping import run

T = TypeVar("T")

_heartbeat: ContextVar[Heartbeat | None] = ContextVar("oauthgate_heartbeat", default=None)


class _Stream(httpcore2.NetworkStream):
    """A connection whose every operation ends by the exchange's deadline."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        heartbeat = _heartbeat.get()
        try:
            while True:
                left = remaining(timeout)
                if heartbeat is None or (left is not None and left <= heartbeat.every):
                    return self._inner.read(max_bytes, left)
                # Waking up in between keeps a lease alive on this very thread, without another one.
                try:
                    return self._inner.read(max_bytes, heartbeat.every)
                except httpcore2.ReadTimeout:
                    run(heartbeat.beat())
        except TimeoutError:
            raise httpcore2.ReadTimeout("deadline passed") from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._inner.write(buffer, remaining(timeout))
        except TimeoutError:
            raise httpcore2.WriteTimeout("deadline passed") from None

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, remaining(timeout)))
        except TimeoutError:
            raise httpcore2.ConnectTimeout("deadline passed") from None

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore2 declares it
        return self._inner.get_extra_info(info)


class _GuardedBackend(httpcore2.SyncBackend):
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
                return _Stream(
                    super().connect_tcp(address, port, remaining(timeout), local_address, socket_options)
                )
            except httpcore2.ConnectError as error:
                last = error
            except TimeoutError:
                raise httpcore2.ConnectTimeout("deadline passed") from None
        raise last or httpcore2.ConnectError(f"{host} has no address")


class _Transport(httpx2.HTTPTransport):
    """httpx2's transport over a pool whose connections are guarded."""

    def __init__(self, trust: Trust) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=KEEPALIVE,
            network_backend=_GuardedBackend(trust),
        )


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

    def transport(self, pool: str) -> httpx2.BaseTransport:
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
    ) -> httpx2.Response:
        transport = self.transport(pool)
        # The wait for a free connection counts too.
        request.extensions = {**request.extensions, "timeout": {"pool": deadline, "connect": deadline}}
        token = deadline_at.set(time.monotonic() + deadline)
        beating = _heartbeat.set(heartbeat)
        try:
            answer = transport.handle_request(request)
            try:
                chunks: list[bytes] = []
                size = 0
                for chunk in answer.iter_raw():
                    size += len(chunk)
                    if size > limit:
                        raise BodyTooLarge(f"more than {limit} bytes")
                    chunks.append(chunk)
            finally:
                answer.close()
        finally:
            deadline_at.reset(token)
            _heartbeat.reset(beating)
        return as_response(answer, b"".join(chunks), limit, request)

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
