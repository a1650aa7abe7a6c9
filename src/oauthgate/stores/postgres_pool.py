"""The connections of one process, and under ASGI of one event loop: a bounded list of idle ones.

Owns: how many there are, which one is taken, and when one is let go. psycopg's own pool is not used: it
needs threads under WSGI, and while no server answers it lets every caller wait to the end of a timeout
without telling why, where a refused connection here is an answer within a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref

from . import postgres_faults as faults
from .postgres_link import AsyncLink, BlockingLink, Link
from .postgres_url import Place

#: Seconds after which a connection that nobody needs is closed, and after which any one is renewed: a
#: name that points to another server after a failover is looked up again then.
IDLE = 300.0
LIFETIME = 1800.0


class Pool:
    """Links of one kind. `take` one, and either `give` it back or `drop` it."""

    def __init__(self, kind: type[BlockingLink] | type[AsyncLink], place: Place) -> None:
        self._kind = kind
        self._place = place
        self._idle: list[Link] = []
        self._closed = False
        self._threads = threading.Semaphore(place.connections)
        self._tasks = asyncio.Semaphore(place.connections)
        # Whoever forgets to close a store is not told off by psycopg's ResourceWarning.
        weakref.finalize(self, _close_idle, self._idle, os.getpid())

    async def take(self, deadline: float) -> Link:
        """An idle link, or a new one. Raises `StoreError`."""
        await self._enter(deadline)
        try:
            while True:
                try:
                    link = self._idle.pop()
                except IndexError:
                    return await self._kind.connect(self._place)
                if link.usable():
                    return link
                link.close()
        except BaseException:
            self._leave()
            raise

    def give(self, link: Link) -> None:
        """The link is good."""
        now = link.parked = time.monotonic()
        if self._closed or now - link.born > LIFETIME:
            link.close()
        else:
            # `append`, `pop` and `remove` of a list are atomic: threads need no lock here.
            self._idle.append(link)
        for oldest in self._idle[:1]:
            if now - oldest.parked > IDLE and _removed(self._idle, oldest):
                oldest.close()
        self._leave()

    def drop(self, link: Link) -> None:
        """The link is broken, or in an unknown state."""
        link.close()
        self._leave()

    def close_idle(self) -> None:
        """Close what nobody is using: what befell one connection has befallen the others."""
        _close_idle(self._idle, os.getpid())

    async def close(self) -> None:
        """Close everything; what is in use, as soon as it is given back."""
        self._closed = True
        self.close_idle()

    async def _enter(self, deadline: float) -> None:
        if self._kind is BlockingLink:
            if not self._threads.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise faults.busy(self._place)
        elif not self._tasks.locked():
            await self._tasks.acquire()  # at once
        else:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._tasks.acquire()
            except TimeoutError:
                raise faults.busy(self._place) from None

    def _leave(self) -> None:
        (self._threads if self._kind is BlockingLink else self._tasks).release()


def _removed(idle: list[Link], link: Link) -> bool:
    try:
        idle.remove(link)
    except ValueError:  # another thread took it
        return False
    return True


def _close_idle(idle: list[Link], owner: int) -> None:
    while idle and owner == os.getpid():
        try:
            link = idle.pop()
        except IndexError:
            return
        link.close()
