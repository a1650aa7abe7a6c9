"""A store of plain functions has threads of its own under ASGI: what hangs there stops nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stores import ABSENT, bridge
from oauthgate.stores import threads as threads_module
from oauthgate.stores.threads import LIMIT, Threads

from .test_sqlite import in_children
from .toys import Engine, SyncOnlyStore

VARIABLE = contextvars.ContextVar("VARIABLE", default="nothing")


class Hanging(SyncOnlyStore):
    """`get` waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(Engine())
        self.free = threading.Event()
        self.asked = 0

    def get(self, key: str) -> Any:
        self.asked += 1
        self.free.wait(60)
        return super().get(key)


def test_a_store_that_hangs_stops_nothing_else() -> None:
    """While every thread of a store waits for it, the loop's default threads are free: to resolve names,
    to read files, and for another store."""

    async def main() -> None:
        inner = Hanging()
        hanging, other = (
            bridge(inner, blocking=False),
            bridge(SyncOnlyStore(Engine()), blocking=False),
        )
        waiting = [asyncio.ensure_future(hanging.get("k")) for _ in range(2 * LIMIT)]
        while inner.asked < LIMIT:
            await asyncio.sleep(0.01)
        for _ in range(100):
            assert await asyncio.to_thread(os.getpid) == os.getpid()
        version = await other.put("k", b"v")
        assert await other.get("k") == (b"v", version, None)
        assert inner.asked == LIMIT, "there is a bound"
        assert not any(each.done() for each in waiting)
        inner.free.set()
        assert await asyncio.gather(*waiting) == [None] * (2 * LIMIT)

    asyncio.run(main())


def test_a_wait_for_a_thread_has_an_end() -> None:
    """Who gets no thread in time is told so, and was not called; who has one is not disturbed."""

    async def main() -> None:
        threads = Threads("Slow", limit=1, patience=0.1)
        free, called = threading.Event(), []
        first = asyncio.ensure_future(threads.run(lambda: free.wait(60)))
        await asyncio.sleep(0)
        with pytest.raises(
            StoreError, match=r"Slow: all 1 threads of this process were busy for 0\.1 s"
        ):
            await threads.run(lambda: called.append(1))
        assert not first.done()
        free.set()
        assert await first is True
        assert await threads.run(lambda: 5) == 5
        assert called == []

    asyncio.run(main())


def test_a_caller_who_is_cancelled() -> None:
    """He does not wait; what no thread has begun is not done, and what one has begun goes to its end."""

    async def main() -> None:
        threads = Threads("Slow", limit=1)
        free, done = threading.Event(), []

        def work(name: str) -> Callable[[], None]:
            def call() -> None:
                free.wait(60)
                done.append(name)

            return call

        begun, queued = (asyncio.ensure_future(threads.run(work(name))) for name in ("begun", "queued"))
        await asyncio.sleep(0.05)
        for each in (begun, queued):
            each.cancel()
            with pytest.raises(asyncio.CancelledError):
                await each
        free.set()
        await threads.run(lambda: None)
        assert done == ["begun"]

    asyncio.run(main())


def test_errors_and_context() -> None:
    """What is raised there arrives here, and the caller's context is seen there."""

    async def main() -> None:
        store = bridge(SyncOnlyStore(Engine()), blocking=False)
        await store.put("k", b"v")
        with pytest.raises(Conflict):
            await store.put("k", b"v", expect=ABSENT)
        VARIABLE.set("something")
        assert await Threads("Any").run(VARIABLE.get) == "something"

    asyncio.run(main())


def test_a_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing is left of a burst, and the next call has a thread again."""
    monkeypatch.setattr(threads_module, "IDLE", 0.05)

    async def main() -> None:
        threads = Threads("Idle store")
        for _ in range(3):
            await asyncio.gather(*(threads.run(lambda: None) for _ in range(10)))
            while any(each.name == "Idle store" for each in threading.enumerate()):
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_forked_child_has_its_own() -> None:
    """A child does not wait for threads that have stayed in its parent."""
    threads = Threads("Any")

    async def main() -> None:
        assert await asyncio.gather(*(threads.run(os.getpid) for _ in range(5))) == [os.getpid()] * 5

    asyncio.run(main())
    assert in_children(lambda: asyncio.run(asyncio.wait_for(main(), 20))) == [0]
    asyncio.run(main())


def test_a_process_can_end() -> None:
    """A call that hangs for ever does not keep a process from ending."""
    code = """
import asyncio, threading
from oauthgate.stores.threads import Threads
async def main():
    begun = threading.Event()
    hanging = asyncio.ensure_future(Threads("x").run(lambda: (begun.set(), threading.Event().wait())))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    print("over", flush=True)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
