"""Hearing from an engine that somebody wrote, so that it need not be asked at every request.

Owns: `Watch`, what one event loop may conclude from what it heard, and `Watches`, the task of each event
loop that listens. How Redis is listened to is in `redis_watch.py`; `recheck.py` asks instead.

An engine tells of changes on a connection of its own, and nothing tells that a connection has died: a
cable that was pulled looks like a day on which nobody signed out. So questions are sent on the same
connection, and what is heard is believed only for `within` seconds after the latest question that was
answered was SENT. Whatever was written before that was told before the answer, because one connection
keeps its order; whatever was written later is younger than `within`. So no change is overlooked for
longer, whichever part fails, and in whichever way.

There is no thread, so without an event loop nobody listens: then, and whenever it cannot be told,
`stamp` is None and the vault goes by time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

from ..errors import StoreError
from ..loop_end import at_loop_end

log = logging.getLogger("oauthgate.store")

#: Records whose changes one event loop follows; twice what a vault keeps.
LIMIT = 4096
#: Seconds before the first connection: a loop that lives for one request does not open any.
SETTLE = 0.1
#: Seconds before the first new connection, and at most; each is half as long to one and a half times.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0


class Watch:
    """What one event loop heard. `within` and `clock` (`time.monotonic`) are in seconds."""

    def __init__(self, within: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.within = within
        self.clock = clock
        self._asked = float("-inf")
        # A mark for each record that was asked for; it is dropped when the record changes. Every mark is
        # an object of its own, so none is ever equal to an earlier one.
        self._marks: dict[str, object] = {}

    @property
    def beat(self) -> float:
        """Seconds between two questions: some may be late before anything is read again."""
        return max(0.05, min(self.within / 3, 2.0))

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`."""
        if self.clock() >= self._asked + self.within:
            return None
        mark = self._marks.get(key)
        if mark is None:
            if len(self._marks) >= LIMIT:
                del self._marks[next(iter(self._marks))]
            mark = self._marks[key] = object()
        return mark

    def answered(self, asked: float) -> None:
        """A question that was sent at `asked` was answered, and all changes before it were told."""
        self._asked = max(self._asked, asked)

    def changed(self, key: str) -> None:
        self._marks.pop(key, None)

    def all_changed(self) -> None:
        self._marks.clear()

    def lost(self) -> None:
        """Nobody listens any more: what changes now will not be told."""
        self._asked = float("-inf")
        self._marks.clear()

    @property
    def alive(self) -> bool:
        return self._asked > float("-inf")


class Sense(Protocol):
    """What one event loop knows: a `Watch`, or something else that gives stamps."""

    def stamp(self, key: str) -> object | None: ...

    def lost(self) -> None: ...

    @property
    def alive(self) -> bool: ...


W = TypeVar("W", bound=Sense)
A = TypeVar("A")
T = TypeVar("T")


class Watches(Generic[W]):
    """One `Watch` for each event loop that asks for stamps, kept up to date by a task of that loop.

    `make` makes one for a number of seconds. `follow` keeps it up to date until that fails, with
    `StoreError`. `where` names the engine in the log. Nothing is done before `start`.
    """

    def __init__(
        self, make: Callable[[float], W], follow: Callable[[W], Awaitable[None]], where: str
    ) -> None:
        self._make = make
        self._follow = follow
        self._where = where
        self._within = 0.0
        self._pid = 0
        self._forget()

    def _forget(self) -> None:
        self._held: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[W, asyncio.Task[None]]
        ] = weakref.WeakKeyDictionary()
        self._ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = (
            weakref.WeakKeyDictionary()
        )
        # The tasks do not keep a store alive that nobody closed: they end with it.
        weakref.finalize(self, _abandon, self._held, os.getpid()).atexit = False

    def start(self, within: float) -> None:
        """Let stamps hold for `within` seconds after the last sign of life; the least of several."""
        self._within = min(within, self._within or within)

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`."""
        if not self._within:
            return None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        if self._pid != os.getpid():
            self._change_process()
        held = self._held.get(loop)
        if held is None:
            watch = self._make(self._within)
            # Not in the context of the request that happens to come first: it would keep it alive.
            keeping = _keep(watch, self._follow, self._within, self._where)
            task = loop.create_task(keeping, context=contextvars.Context())
            held = self._held[loop] = (watch, task)
            self._ends[loop] = at_loop_end(self.close)
        return held[0].stamp(key)

    async def close(self) -> None:
        """Stop listening on the running event loop; the next stamp begins anew."""
        if self._pid != os.getpid():
            return
        loop = asyncio.get_running_loop()
        self._ends.pop(loop, None)
        held = self._held.pop(loop, None)
        if held is not None:
            held[1].cancel()
            await asyncio.wait([held[1]])

    def _change_process(self) -> None:
        # After a fork the parent's tasks and sockets are neither used nor closed here, nor collected.
        if self._pid:
            _INHERITED.append((self._held, self._ends))
        self._forget()
        self._pid = os.getpid()


_INHERITED: list[object] = []


async def _keep(watch: W, follow: Callable[[W], Awaitable[None]], within: float, where: str) -> None:
    await asyncio.sleep(SETTLE)
    pause, told = FIRST_PAUSE, ""
    while True:
        try:
            await follow(watch)
            why = "the connection ended"
        except StoreError as error:
            why = str(error)
        except Exception as error:
            # A defect here or in the library must not end the listening: the time rule holds.
            why = f"{where}: failed with {type(error).__name__}"
        finally:
            alive = watch.alive
            watch.lost()
        if alive:
            pause, told = FIRST_PAUSE, ""
        if why != told:
            told = why
            log.info(
                "users are believed for %g s (near_cache) and then read anew, until it can be told "
                "again whether they changed: %s",
                within,
                why,
            )
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrets
        pause = min(2 * pause, LONGEST_PAUSE)


def _abandon(
    held: Mapping[asyncio.AbstractEventLoop, tuple[object, asyncio.Task[None]]], owner: int
) -> None:
    if owner == os.getpid():
        for loop, (_, task) in list(held.items()):
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(task.cancel)


def weakly(method: Callable[[A], Awaitable[T]]) -> Callable[[A], Awaitable[T]]:
    """A method of a store for its task, which does not keep the store alive."""
    held = weakref.WeakMethod(method)

    async def call(argument: A) -> T:
        bound = held()
        if bound is None:
            raise StoreError("the store was let go of")
        return await bound(argument)

    return call
