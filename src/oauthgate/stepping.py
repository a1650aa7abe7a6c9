"""Run a coroutine that never suspends, on the calling thread, without an event loop.

The core of oauthgate is written once, as coroutines. Under ASGI the server's event loop awaits it.
Under WSGI every leaf that the core awaits is blocking code behind an `async def`, so the whole
coroutine runs from start to end in one `send(None)`: ordinary blocking code with a plain traceback,
which works with threads, after a fork and under gevent, because there is nothing to share or to wake.
`docs/stepping.md` says what may be awaited in the core and what may not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end and return its result.

    Raises `RuntimeError` when it awaits something that really suspends: that is a defect of the
    core or of a store that claims to be blocking, and it must be loud instead of hanging.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    else:
        raise RuntimeError(
            "stepped code suspended: it awaited an event loop's future where blocking IO is expected"
        )
    finally:
        coroutine.close()


def iterate(source: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous iterator that never suspends."""
    while True:
        try:
            item = run(_next(source))
        except StopAsyncIteration:
            return
        yield item


async def _next(source: AsyncIterator[T]) -> T:
    return await source.__anext__()
