"""Threads of a store's own, for one whose methods block: under ASGI they must not block the event loop.

They are not the event loop's default ones, which also resolve names and read files for the whole
application: a store that hangs would stop all of that. There is a bound to them, and to the wait for
one. They are daemons, so none keeps a process from ending, and none is used in another process.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from ..errors import StoreError

T = TypeVar("T")

#: Threads of one store in a process, at most: calls that are under way at once.
LIMIT = 32
#: Seconds that a call waits for one of them.
PATIENCE = 10.0
#: Seconds without work after which a thread ends.
IDLE = 10.0


class Threads:
    """`name` is that of the store, for errors and for who looks at the threads of a process."""

    def __init__(self, name: str, limit: int = LIMIT, patience: float = PATIENCE) -> None:
        self._name = name
        self._limit = limit
        self._patience = patience
        self._crew = _Crew(name)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, called in a thread with the context of the caller.

        A caller who is cancelled does not wait for it. Raises `StoreError` when no thread becomes free.
        """
        if self._crew.pid != os.getpid():
            self._crew = _Crew(self._name)  # the threads of before have stayed in the parent
        work: Future[T] = Future()
        self._crew.add(work, partial(contextvars.copy_context().run, function), self._limit)
        timer = asyncio.get_running_loop().call_later(self._patience, work.cancel)
        answer = asyncio.ensure_future(asyncio.wrap_future(work))
        try:
            await asyncio.wait([answer])
        except asyncio.CancelledError:
            answer.cancel()  # and with it what no thread has begun yet
            raise
        finally:
            timer.cancel()
        if answer.cancelled():
            raise StoreError(
                f"{self._name}: all {self._limit} threads of this process were busy for "
                f"{self._patience:g} s: see whether what it stands on hangs"
            )
        return answer.result()


class _Crew:
    """The threads of one process."""

    def __init__(self, name: str) -> None:
        self.pid = os.getpid()
        self._name = name
        self._queue: queue.SimpleQueue[tuple[Future[object], Callable[[], object]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # As long as there are as many threads as pieces of work, none of these waits for another.
        self._threads = self._pending = 0

    def add(self, work: Future[T], function: Callable[[], T], limit: int) -> None:
        with self._lock:
            self._pending += 1
            fresh = self._threads < min(self._pending, limit)
            self._threads += fresh
        self._queue.put((work, function))  # type: ignore[arg-type]  # the two belong together
        if fresh:
            try:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError:
                # The system gives no more threads: the work waits for one that there is, or for the
                # next try, for as long as any other.
                with self._lock:
                    self._threads -= 1

    def _serve(self) -> None:
        while True:
            try:
                work, function = self._queue.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._threads > self._pending:
                        self._threads -= 1
                        return
                continue
            try:
                if work.set_running_or_notify_cancel():
                    try:
                        work.set_result(function())
                    except BaseException as error:
                        work.set_exception(error)
            finally:
                with self._lock:
                    self._pending -= 1
                del work, function  # nothing of a request is kept while there is no other
