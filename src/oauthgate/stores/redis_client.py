"""Connections to Redis, blocking and asynchronous, and one command at a time over them.

Owns: `Connections`. redis-py (https://redis.readthedocs.io) knows the protocol, Sentinel and Cluster;
here it is decided that

- clients are kept by process id (no socket is shared after a fork), and under ASGI by event loop;
- redis-py repeats nothing by itself: it would send a write a second time without telling. What may be
  sent again after a broken connection the caller says;
- a process waits for a free connection rather than opening one more for every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ConfigError, StoreError
from ..loop_end import at_loop_end
from .redis_faults import store_error
from .redis_url import Place

Part = bytes | str | int | float


class Script:
    """A Lua script that touches its keys alone, named to the server by its SHA-1."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class _Held:
    """What one process, or one event loop, holds: a client, and how many may use it at once."""

    def __init__(self, client: Any, sentinels: Sequence[Any], free: Any) -> None:  # noqa: ANN401 - either colour
        self.client = client
        self.sentinels = sentinels
        self.free = free

    def close(self) -> None:
        for each in (self.client, *self.sentinels):
            each.close()

    async def aclose(self) -> None:
        for each in (self.client, *self.sentinels):
            await each.aclose()


class Connections:
    """Commands to the servers of one `Place`. Every method raises `StoreError` when they fail."""

    def __init__(self, place: Place, *, blocking: bool) -> None:
        try:
            import redis
        except ImportError:
            raise ConfigError(
                f"[oauthgate] store: {place.scheme}:// needs the package redis, which is not installed: "
                'pip install "oauthgate[redis]"'
            ) from None
        self.place = place
        self._blocking = blocking
        self.errors = (
            redis.RedisError,
            redis.exceptions.RedisClusterException,
            redis.exceptions.ChildDeadlockedError,
            OSError,
            UnicodeError,  # a host name that is none
        )
        self._broken = redis.ConnectionError
        self._read_only = redis.ReadOnlyError
        self.answered = redis.ResponseError
        self._no_script = redis.exceptions.NoScriptError
        self._by_process: dict[int, _Held] = {}
        self._pid = 0
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Held] = (
            weakref.WeakKeyDictionary()
        )
        self._ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = (
            weakref.WeakKeyDictionary()
        )

    # -- commands

    async def command(self, *command: Part, repeat: bool = False) -> Any:  # noqa: ANN401 - as the server answers
        """Send one command. With `repeat` it is sent again when the connection breaks."""
        return await self._send(command, None, repeat)

    async def script(self, script: Script, *keys: bytes, arguments: Sequence[Part], repeat: bool) -> Any:  # noqa: ANN401 - what the script answers
        """Run a script on its keys; on one, for a cluster runs it where that is."""
        rest = (len(keys), *keys, *arguments)
        return await self._send(("EVALSHA", script.sha, *rest), ("EVAL", script.source, *rest), repeat)

    async def _send(
        self, command: tuple[Part, ...], if_unknown: tuple[Part, ...] | None, repeat: bool
    ) -> Any:  # noqa: ANN401 - as the server answers
        again = True
        while True:
            try:
                return await self._use(_execute(command))
            except self._no_script as error:
                if if_unknown is None:
                    raise store_error(self.place, error) from None
                command, if_unknown = if_unknown, None
            except self.errors as error:
                # Refused by a server that is not the primary any more: nothing was written. The name, or
                # the sentinel, may lead to another one by now; but a connection to the one that was
                # demoted stays as it is, and would go on reading what is old.
                refused = isinstance(error, self._read_only) or isinstance(
                    error.__context__, self._read_only
                )
                if refused:
                    await self._drop_idle()
                if not again or not (refused or (repeat and isinstance(error, self._broken))):
                    raise store_error(self.place, error) from None
                again = False

    async def many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in one round trip for each server."""
        with self.failing():
            if self.place.kind == "cluster":
                return list(await self._use(lambda client: client.mget_nonatomic(keys)))
            return list(await self._use(lambda client: client.execute_command("MGET", *keys)))

    async def heads(self, keys: Sequence[bytes], length: int) -> list[bytes]:
        """The first bytes of `keys`, or nothing, in one round trip for each server."""
        with self.failing():
            return list(await self._use(_pipeline(_heads(keys, length))))

    async def value_and_heads(
        self, key: bytes, keys: Sequence[bytes], length: int
    ) -> tuple[bytes | None, list[bytes]]:
        """What is at `key`, and the first bytes of `keys`, in the same round trip. As a read it is sent
        again when the connection breaks."""
        act = _pipeline([("GET", key), *_heads(keys, length)])
        with self.failing():
            try:
                answers = await self._use(act)
            except self._broken:
                answers = await self._use(act)
        return answers[0], list(answers[1:])

    async def primaries(self) -> list[Any]:
        """What `at` takes: the server, or every primary of a cluster."""
        with self.failing():
            client = (self._blocking_held() if self._blocking else self._loop_held()).client
            if self.place.kind != "cluster":
                return [client]
            if self._blocking:
                return [client.get_redis_connection(node) for node in client.get_primaries()]
            await client.initialize()
            return list(client.get_primaries())

    async def at(self, server: Any, *command: Part) -> Any:  # noqa: ANN401 - as the server answers
        """Send one command to one of the `primaries`."""
        with self.failing():
            return await self._use(lambda _: server.execute_command(*command))

    async def about(self, server: Any) -> dict[str, object]:  # noqa: ANN401 - of redis-py
        """What INFO tells of one of the `primaries`; nothing where it is not allowed."""
        with self.failing():
            try:
                return dict(await self._use(lambda _: server.execute_command("INFO")))
            except self.answered:
                return {}

    def apart(self) -> Any:  # noqa: ANN401 - of redis-py
        """A connection beside the others that the server may push to (RESP3), not connected yet.

        Only under ASGI, and not to a cluster. No read on it ends by itself.
        """
        pool = self._loop_held().client.connection_pool
        return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3, "socket_timeout": None})

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """What redis-py raises inside is a `StoreError`."""
        try:
            yield
        except self.errors as error:
            raise store_error(self.place, error) from None

    async def _use(self, act: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as the server answers
        """Do something with the client, as soon as a connection of this process is free for it."""
        if self._blocking:
            held = self._blocking_held()
            if not held.free.acquire(timeout=self.place.timeout):
                raise self._all_in_use()
            try:
                return act(held.client)
            finally:
                held.free.release()
        held = self._loop_held()
        if held.free.locked():
            try:
                async with asyncio.timeout(self.place.timeout):
                    await held.free.acquire()
            except TimeoutError:
                raise self._all_in_use() from None
        else:
            await held.free.acquire()
        try:
            return await act(held.client)
        finally:
            held.free.release()

    def _all_in_use(self) -> StoreError:
        return StoreError(
            f"Redis at {self.place}: all {self.place.connections} connections of this process were in "
            f"use for {self.place.timeout:g} s: see whether the server is slow, or raise ?connections="
        )

    # -- clients

    def _blocking_held(self) -> _Held:
        pid = os.getpid()
        held = self._by_process.get(pid)
        if held is None:
            for other in list(self._by_process):
                if other != pid:
                    _INHERITED.append(self._by_process.pop(other, None))
            made = _make(self.place, blocking=True)
            held = self._by_process.setdefault(pid, made)
            if held is not made:  # another thread was first
                made.close()
        return held

    def _loop_held(self) -> _Held:
        if self._pid != os.getpid():
            if self._pid:
                _INHERITED.append((self._by_loop, self._ends))
            self._by_loop = weakref.WeakKeyDictionary()
            self._ends = weakref.WeakKeyDictionary()
            self._pid = os.getpid()
        loop = asyncio.get_running_loop()
        held = self._by_loop.get(loop)
        if held is None:
            held = self._by_loop[loop] = _make(self.place, blocking=False)
            self._ends[loop] = at_loop_end(self.close)
        return held

    async def _drop_idle(self) -> None:
        if self.place.kind == "cluster":
            return  # answers MOVED, and looks for the others by itself
        with contextlib.suppress(*self.errors):
            if self._blocking:
                self._blocking_held().client.connection_pool.disconnect(inuse_connections=False)
            else:
                await self._loop_held().client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close what this process, or the running event loop, holds."""
        with contextlib.suppress(*self.errors):
            if self._blocking:
                held = self._by_process.pop(os.getpid(), None)
                if held is not None:
                    held.close()
            elif self._pid == os.getpid():
                loop = asyncio.get_running_loop()
                self._ends.pop(loop, None)
                held = self._by_loop.pop(loop, None)
                if held is not None:
                    await held.aclose()


def _execute(command: tuple[Part, ...]) -> Callable[[Any], Any]:
    return lambda client: client.execute_command(*command)


def _heads(keys: Sequence[bytes], length: int) -> list[tuple[Part, ...]]:
    return [("GETRANGE", key, 0, length - 1) for key in keys]


def _pipeline(commands: Sequence[tuple[Part, ...]]) -> Callable[[Any], Any]:
    """Commands that are sent together; nothing else is promised of them."""

    def act(client: Any) -> Any:  # noqa: ANN401 - of redis-py
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute()

    return act


# A parent's clients, in a forked child: neither used nor closed nor collected there.
_INHERITED: list[object] = []


def _make(place: Place, *, blocking: bool) -> _Held:
    """A client of redis-py for `place`; only a blocking one of a cluster connects at once."""
    import redis
    import redis.asyncio.cluster
    import redis.asyncio.retry
    import redis.asyncio.sentinel
    import redis.backoff
    import redis.cluster
    import redis.retry
    import redis.sentinel

    side: Any = redis if blocking else redis.asyncio
    retry = (redis.retry if blocking else redis.asyncio.retry).Retry(redis.backoff.NoBackoff(), 0)
    free = (threading if blocking else asyncio).Semaphore(place.connections)
    common: dict[str, Any] = {
        "socket_timeout": place.timeout,
        "socket_connect_timeout": place.connect_timeout,
        # The older of the two protocols: every server and proxy speaks it, without a greeting.
        "protocol": 2,
    }
    if place.tls:
        common |= {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": place.ca,
            "ssl_certfile": place.cert,
            "ssl_keyfile": place.key,
        }
    own: dict[str, Any] = {
        "username": place.username,
        "password": place.password,
        # `free` limits them; redis-py keeps one that it is about to close a little longer.
        "max_connections": 2 * place.connections,
        **common,
    }
    if place.kind == "cluster":
        node = (redis.cluster if blocking else redis.asyncio.cluster).ClusterNode
        nodes = [node(host, port) for host, port in place.hosts]
        return _Held(side.RedisCluster(startup_nodes=nodes, retry=retry, **own), [], free)
    own |= {"db": place.db, "retry": retry}
    if place.kind == "sentinel":
        asked = {
            "username": place.sentinel_username,
            "password": place.sentinel_password,
            "retry": retry,
            **common,
        }
        manager = side.sentinel.Sentinel(place.hosts, sentinel_kwargs=asked)
        if blocking:
            own["connection_class"] = _sentinel_connection(tls=place.tls)
        return _Held(manager.master_for(place.service, **own), manager.sentinels, free)
    if place.kind == "socket":
        return _Held(side.Redis(unix_socket_path=place.path, **own), [], free)
    host, port = place.hosts[0]
    return _Held(side.Redis(host=host, port=port, **own), [], free)


def _sentinel_connection(*, tls: bool) -> type:
    """redis-py's blocking connection to what a sentinel names, made to forget an answer not waited for.

    Under gevent or at a worker's shutdown the wait for an answer can end with an exception that is no
    error of the connection. Every other connection of redis-py is closed then; this one would go back to
    its pool, and give the late answer to whoever asks next.
    """
    from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

    base: Any = SentinelManagedSSLConnection if tls else SentinelManagedConnection

    class SentinelConnection(base):  # type: ignore[misc]  # one of two
        def read_response(
            self, disable_decoding: bool = False, *, disconnect_on_error: bool = True, **options: object
        ) -> object:
            return super().read_response(
                disable_decoding, disconnect_on_error=disconnect_on_error, **options
            )

    return SentinelConnection
