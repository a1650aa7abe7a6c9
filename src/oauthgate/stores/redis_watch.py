"""Hearing from Redis which users were changed: client-side caching in its broadcasting mode.

Owns: one connection that speaks RESP3, on which the server says which keys of ours were written,
deleted, expired or flushed (https://redis.io/docs/latest/develop/reference/client-side-caching/,
"Broadcasting mode"). The server queues that before it answers the writer, and one connection keeps its
order, so what was acknowledged before a question is told before its answer.

The question is INFO, which also tells that this still is the primary: a replica repeats changes late.

A proxy may take the subscription and deliver nothing. So nothing is believed before a record that was
written by way of the store's other connections was told here.

Where the server does not tell at all, it is asked (`recheck.py`), as a cluster is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import StoreError
from .recheck import Recheck, Rechecking
from .redis_client import Connections
from .redis_url import Place
from .watch import Watch

log = logging.getLogger("oauthgate.store")

#: What is told of: users, and the records with which a subscription is tried.
_USERS, _TRIALS = "user/", "watch/"
#: Seconds, half as long to one and a half times, after which a server that does not tell is tried again:
#: it may have been reconfigured.
UNOFFERED_PAUSE = 300.0


class Unoffered(Exception):
    """This server, or what stands before it, does not tell of changes. The text is cause and cure."""


class RedisSense:
    """What one event loop knows: what it was `told`, or else what it has `asked` (`watch.Sense`)."""

    def __init__(self, within: float) -> None:
        self.told = Watch(within)
        self.asked = Recheck(within)
        #: Since when (`time.monotonic`) it may be told, and why it was not.
        self.listens_at = float("-inf")
        self.why = ""

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`. A mark of the one never equals a version of the other."""
        mark = self.told.stamp(key)
        return mark if mark is not None else self.asked.stamp(key)

    def lost(self) -> None:
        self.told.lost()
        self.asked.lost()

    @property
    def alive(self) -> bool:
        return self.told.alive or self.asked.alive


class RedisWatch:
    """`write` writes a record that has expired already, under the key it is given; `ask` keeps a
    `Recheck` up to date until a time."""

    def __init__(
        self,
        place: Place,
        connections: Connections,
        write: Callable[[str], Awaitable[object]],
        ask: Rechecking,
    ) -> None:
        self._place = place
        self._connections = connections
        self._write = write
        self._ask = ask
        self._prefix = place.prefix.encode()

    async def follow(self, sense: RedisSense) -> None:
        """Keeps what is known up to date until that fails; see `watch.Watches`."""
        while True:
            if sense.told.clock() >= sense.listens_at:
                try:
                    await self.listen(sense.told)
                except Unoffered as reason:
                    if sense.why != str(reason):
                        sense.why = str(reason)
                        log.info(
                            "all users in use are asked for together, as often as near_cache says, "
                            "until they are told of: %s",
                            sense.why,
                        )
                    pause = UNOFFERED_PAUSE * random.uniform(0.5, 1.5)  # noqa: S311 - not for secrets
                    sense.listens_at = sense.told.clock() + pause
            await self._ask(sense.asked, sense.listens_at)

    async def listen(self, watch: Watch) -> None:
        """Have the server tell. Raises `Unoffered` where it does not, `StoreError` when that ends."""
        with self._connections.failing():
            connection = self._connections.apart()
            try:
                await self._listen(connection, watch)
            finally:
                watch.lost()
                with contextlib.suppress(*self._connections.errors):
                    await connection.disconnect()

    async def _listen(self, connection: Any, watch: Watch) -> None:  # noqa: ANN401 - of redis-py
        trial = f"{_TRIALS}{secrets.token_hex(8)}"
        tried = False

        async def told(push: list[Any]) -> list[Any]:
            nonlocal tried
            keys: list[bytes] | None = push[1] if push[0] == b"invalidate" else []
            if keys is None:  # the whole database was emptied
                watch.all_changed()
            for key in keys or []:
                name = key.removeprefix(self._prefix).decode("utf-8", "surrogateescape")
                watch.changed(name)
                tried = tried or name == trial
            return push

        try:
            async with asyncio.timeout(self._place.connect_timeout + self._place.timeout):
                await self._subscribe(connection, told)
        except TimeoutError:
            raise self._silent() from None
        await self._write(trial)
        asked: float | None = None
        due = watch.clock()
        while True:
            if asked is None and watch.clock() >= due:
                asked = watch.clock()
                await connection.send_command("INFO", "replication")
            until = due if asked is None else asked + self._place.timeout
            try:
                async with asyncio.timeout(max(0.0, until - watch.clock())):
                    # Interrupted, it goes on where it was: what was read of an answer is kept.
                    answer = await connection.read_response(disconnect_on_error=False, push_request=True)
            except TimeoutError:
                if asked is None:
                    continue
                raise self._silent() from None
            if asked is None or not isinstance(answer, bytes | str):
                continue  # a push, which `told` has had
            if "role:master" not in str(answer):
                raise StoreError(f"Redis at {self._place}: is not the primary any more")
            if not tried:
                raise Unoffered(
                    f"Redis at {self._place}: takes CLIENT TRACKING and does not tell of a change: a "
                    "proxy that stands before it may be why"
                )
            watch.answered(asked)
            due = asked + watch.beat
            asked = None

    async def _subscribe(self, connection: Any, told: Callable[..., object]) -> None:  # noqa: ANN401
        try:
            await connection.connect()
            # redis-py has no public name for it; where it has none at all the time rule holds.
            connection._parser.set_invalidation_push_handler(told)
            prefixes = (part for name in (_USERS, _TRIALS) for part in ("PREFIX", self._key(name)))
            await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            await connection.read_response(disconnect_on_error=False)
            await connection.send_command("INFO", "replication")
            await connection.read_response(disconnect_on_error=False)
        except self._connections.answered as error:
            raise Unoffered(
                f"Redis at {self._place}: does not offer client-side caching to this user "
                f"({type(error).__name__}): it needs Redis 6 or Valkey, no proxy that hides it, and "
                "+client|tracking +info"
            ) from None

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode()

    def _silent(self) -> StoreError:
        return StoreError(f"Redis at {self._place}: gave no sign of life in {self._place.timeout:g} s")
