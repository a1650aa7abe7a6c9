"""Putting an ASGI app on a port from inside a program: for demonstrations and tests.

Owns: `Server`, `serve` and `running`. uvicorn is imported only here and only when used; it comes
with the extra `testing`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self, overload

from .provider import LocalProvider

if TYPE_CHECKING:
    import uvicorn

Channel = MutableMapping[str, Any]
ASGIApp = Callable[
    [Channel, Callable[[], Awaitable[Channel]], Callable[[Channel], Awaitable[None]]],
    Awaitable[None],
]
START_DEADLINE = 10.0  # seconds


class Server:
    """An ASGI app served from a daemon thread; a context manager that stops it."""

    def __init__(self, url: str, server: uvicorn.Server, thread: threading.Thread) -> None:
        self.url = url
        self._server, self._thread = server, thread

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening, drop what is still open after a second, and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the server at {self.url} did not stop within {timeout} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Server:
    """Start serving `app`; return once it accepts requests. Port 0 is any free one.

    A `LocalProvider` without an issuer takes the server's address as its issuer.

    Raises:
        OSError: the port is taken.
        RuntimeError: the app did not start.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named by its protocol, or asyncio leaves Nagle's algorithm on: 40 ms for every request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        if isinstance(app, LocalProvider) and app.issuer is None:
            app.issuer = url
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, args=([listener],), name=f"serve {url}", daemon=True
        )
        thread.start()
        deadline = time.monotonic() + START_DEADLINE
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                server.should_exit = True
                raise RuntimeError(f"the app did not start at {url}")
            time.sleep(0.002)
    except BaseException:
        listener.close()
        raise
    return Server(url, server, thread)


@overload
def running(app: ASGIApp, /) -> AbstractContextManager[str]: ...
@overload
def running(
    app: ASGIApp, second: ASGIApp, /, *more: ASGIApp
) -> AbstractContextManager[tuple[str, ...]]: ...
def running(
    *apps: ASGIApp,
) -> AbstractContextManager[str] | AbstractContextManager[tuple[str, ...]]:
    """Serve apps on free loopback ports while the block runs; gives the base URL or URLs.

    An issuer that a provider took from its port is taken back at the end, so that the same
    provider can run again on another one.
    """
    return _running_one(apps[0]) if len(apps) == 1 else _running_all(apps)


@contextmanager
def _running_one(app: ASGIApp) -> Iterator[str]:
    given = app.issuer if isinstance(app, LocalProvider) else None
    with serve(app) as server:
        yield server.url
    if isinstance(app, LocalProvider):
        app.issuer = given


@contextmanager
def _running_all(apps: tuple[ASGIApp, ...]) -> Iterator[tuple[str, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(_running_one(app)) for app in apps)
