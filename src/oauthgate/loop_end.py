"""Cleaning up when an event loop ends, although nobody tells us that it does.

A server announces its end (ASGI lifespan); a script or a test client that makes a loop per request
does not. What runs a loop properly (`asyncio.run`, anyio) closes its asynchronous generators at the
end, so a generator that waits in a `try` is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable


def at_loop_end(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Have `close` awaited when the running loop shuts down; keep the returned object until then."""

    async def waiting() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await close()

    generator = waiting()
    # Started by hand: it reaches its `yield` without suspending, and the loop now knows it.
    with contextlib.suppress(StopIteration):
        generator.__anext__().send(None)
    return generator
