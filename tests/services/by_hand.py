"""A server by hand for the tests of connections, and calls of one colour over one scheme to it.

A server is a function of a socket: it reads and writes by hand, keeps silent, breaks off, hangs up. When
it is closed, every connection must have been let go of by the client.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from oauthgate.stepping import run

from .test_transport import Side, certificate

T = TypeVar("T")
#: 20 MB of which no part is like another.
LARGE = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(20_000_000 // 32))


class Caller:
    """A connection as its server sees it."""

    def __init__(self, host: Host, number: int, accepted: socket.socket) -> None:
        self.host = host
        self.number = number
        self.socket = accepted

    def head(self) -> bytes:
        """A request's head, and no byte more. Raises `EOFError` when the client has gone."""
        read = b""
        while not read.endswith(b"\r\n\r\n"):
            more = self.socket.recv(1)
            if not more:
                raise EOFError
            read += more
        self.host.heads.append((self.number, read))
        return read

    def answer(self, said: bytes) -> None:
        """Answer all requests that come; they have no body."""
        while True:
            self.head()
            self.socket.sendall(said)

    def secure(self) -> None:
        self.socket = self.host.context.wrap_socket(self.socket, server_side=True)

    def hang_up(self, how: str) -> None:
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
        elif how == "close_notify" and isinstance(self.socket, ssl.SSLSocket):
            self.socket.settimeout(0.05)
            with suppress(OSError):
                self.socket.unwrap()  # nobody need answer it
            self.socket.settimeout(None)
        elif how == "close":
            self.socket.close()
        else:
            self.socket.shutdown(socket.SHUT_WR)


class Host:
    """A server that is a function of each connection; `ended` counts those that the client let go of."""

    def __init__(self, serve: Callable[[Caller], None], context: ssl.SSLContext, secure: bool) -> None:
        self.context = context
        self.connections = 0
        self.heads: list[tuple[int, bytes]] = []
        self.ended = threading.Semaphore(0)
        self.over = threading.Event()
        self._serve = serve
        self._secure = secure
        self._failed: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listening.getsockname()[1]
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            # Or else what was said before a reset would still wait here, for an acknowledgement.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._start(self._run, Caller(self, self.connections, accepted))

    def _run(self, caller: Caller) -> None:
        try:
            with suppress(OSError, EOFError):
                if self._secure:
                    caller.secure()
                self._serve(caller)
            with suppress(OSError):
                while caller.socket.recv(65536):
                    pass
        except BaseException as error:
            self._failed.append(error)
        finally:
            caller.socket.close()
            self.ended.release()

    def close(self) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads), "a connection was left open"
        assert self._failed == []


class Web:
    """Calls of one colour over one scheme."""

    def __init__(self, kind: str, scheme: str, context: ssl.SSLContext) -> None:
        self.side = Side(kind)
        self.io = self.side.io
        self.io.trust(frozenset({"localhost"}))
        self.blocking = self.side.blocking
        self.scheme = scheme
        self.context = context

    def __call__(self, work: Callable[[], Coroutine[Any, Any, T]], *, close: bool = True) -> T:
        async def scenario() -> T:
            try:
                return await work()
            finally:
                if close:
                    await self.io.close()
                    if not self.blocking:
                        await no_task_stays()

        return run(scenario()) if self.blocking else asyncio.run(scenario())

    @contextmanager
    def host(self, serve: Callable[[Caller], None], *, bare: bool = False) -> Iterator[Host]:
        """`bare`: what is served decides about TLS itself."""
        made = Host(serve, self.context, self.scheme == "https" and not bare)
        try:
            yield made
        finally:
            made.close()

    def url(self, host: Host) -> str:
        return f"{self.scheme}://localhost:{host.port}/"

    async def get(self, host: Host, **options: Any) -> httpx2.Response:
        return await self.side.send("GET", self.url(host), **options)

    async def post(self, host: Host, content: Any, **options: Any) -> httpx2.Response:
        return await self.side.send("POST", self.url(host), content=content, **options)

    async def gone(self, host: Host) -> bool:
        """Whether one more connection was let go of."""
        if self.blocking:
            return host.ended.acquire(timeout=10)
        return await asyncio.to_thread(host.ended.acquire, timeout=10)

    def pausing(self, step: str, seconds: float) -> dict[str, Any]:
        """The option of a call that waits at one of httpcore2's steps."""

        def blocking(at: str, info: object) -> None:
            if at == step:
                time.sleep(seconds)  # the thread of a caller that blocks

        async def suspending(at: str, info: object) -> None:
            if at == step:
                await asyncio.sleep(seconds)

        return {"extensions": {"trace": blocking if self.blocking else suspending}}


async def no_task_stays() -> None:
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        _, staying = await asyncio.wait(others, timeout=10)
        assert not staying


class Contexts:
    """A server's certificate for localhost, one for another name and one that nobody trusts."""

    def __init__(self, folder: Path) -> None:
        file, self.server = certificate(folder, "localhost")
        other, self.elsewhere = certificate(folder, "elsewhere.example")
        self.client = ssl.create_default_context(cafile=str(file))
        self.client.load_verify_locations(other)
        _, self.unknown = certificate(folder, "localhost")


def bodies(web: Web, content: bytes) -> list[Any]:
    """The same in one piece and in many, which are made without a pause."""

    async def suspending() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 30_000):
            yield content[start : start + 30_000]

    return [content, pieces() if web.blocking else suspending()]


def length(content: bytes) -> dict[str, str]:
    return {"Content-Length": str(len(content))}


@contextmanager
def full_listener() -> Iterator[socket.socket]:
    """A listener whose queue is full, so that it answers to nobody."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = []
        for _ in range(4):
            made = socket.socket()
            made.setblocking(False)
            with suppress(BlockingIOError):
                made.connect(full.getsockname())
            waiting.append(made)
        try:
            yield full
        finally:
            for made in waiting:
                made.close()
