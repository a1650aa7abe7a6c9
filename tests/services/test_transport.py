"""The transport under a service: what goes over the wire, and which connections are used again.

The other side is a script: bytes in, bytes out, so that it can do what no proper server does.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from oauthgate import io_aiohttp, io_async, io_blocking, io_transport
from oauthgate.io import IO, AddressRefused
from oauthgate.io_async import AsyncIO
from oauthgate.io_blocking import BlockingIO
from oauthgate.stepping import run

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: What is done with a request: the answer's pieces; None ends the connection.
Script = Callable[[int, bytes], Iterable[bytes | None]]


class Peer:
    """A server that does what it is told. `requests` are the connection's number and the bytes."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[tuple[int, bytes]] = []
        self.connections = 0
        self.ended = threading.Semaphore(0)
        self._context = context
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=300)
        self.port = self._listening.getsockname()[1]
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}/"
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(accepted)
            self.connections += 1
            self._start(self._serve, self.connections, accepted)

    def _serve(self, number: int, accepted: socket.socket) -> None:
        with suppress(OSError):
            if self._context is not None:
                accepted = self._context.wrap_socket(accepted, server_side=True)
                self._open.append(accepted)
            self._answer(number, accepted)
        accepted.close()
        self.ended.release()

    def _answer(self, number: int, accepted: socket.socket) -> None:
        while (request := _read_request(accepted)) is not None:
            self.requests.append((number, request))
            for piece in self.script(number, request):
                if piece is None:
                    accepted.shutdown(socket.SHUT_RDWR)
                    return
                accepted.sendall(piece)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for connection in self._open:
            connection.close()


def _read_request(connection: socket.socket) -> bytes | None:
    """A request as far as its framing says; what hangs on to an upgrade is read by itself."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
        if data.startswith(b"raw"):
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    chunked = b"transfer-encoding: chunked" in lines
    while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
        if b"x-early: 1" in lines:
            break
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    return head + b"\r\n\r\n" + body


@contextmanager
def peer(script: Script, context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    made = Peer(script, context)
    try:
        yield made
    finally:
        made.close()


class Side:
    """A real httpx2 client of one kind over the shared transport; its calls are awaited on both."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.blocking = kind == "blocking"
        self.io: IO = BlockingIO() if self.blocking else AsyncIO(kind)
        self.io.trust(frozenset({"127.0.0.1"}))

    def __call__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def scenario() -> T:
            try:
                return await work()
            finally:
                await self.io.close()

        return run(scenario()) if self.blocking else asyncio.run(scenario(), debug=False)

    async def send(
        self, method: str, url: str, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        transport: Any = self.io.transport("pool")
        if self.blocking:
            client = httpx2.Client(transport=transport, trust_env=False)
            return client.send(client.build_request(method, url, **options), stream=stream)
        other = httpx2.AsyncClient(transport=transport, trust_env=False)
        return await other.send(other.build_request(method, url, **options), stream=stream)

    async def get(self, url: str, **options: Any) -> httpx2.Response:
        return await self.send("GET", url, **options)

    async def read(self, response: httpx2.Response) -> bytes:
        return response.read() if self.blocking else await response.aread()

    async def end(self, response: httpx2.Response) -> None:
        if self.blocking:
            response.close()
        else:
            await response.aclose()

    async def gone(self, server: Peer, timeout: float = 10) -> bool:
        """Whether one more connection has ended."""
        if self.blocking:
            return server.ended.acquire(timeout=timeout)
        return await asyncio.to_thread(server.ended.acquire, timeout=timeout)

    async def pause(self, seconds: float) -> None:
        await self.io.sleep(seconds)

    def stream(self, *parts: bytes) -> Any:
        """A body that is made while it is sent."""
        if self.blocking:
            return iter(parts)

        async def each() -> AsyncIterator[bytes]:
            for part in parts:
                await asyncio.sleep(0)
                yield part

        return each()


@pytest.fixture(params=["blocking", "httpx2", "aiohttp"])
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


def answering(*pieces: bytes | None) -> Script:
    return lambda number, request: list(pieces)


def in_two_parts(go_on: threading.Event) -> Script:
    """The answer's head at once, its body when `go_on` is set: until then its connection is in use."""

    def body() -> Iterator[bytes]:
        yield OK[:-2]
        go_on.wait(10)
        yield OK[-2:]

    return lambda number, request: body()


def test_a_connection_is_used_again(side: Side) -> None:
    """Calls one after another take one connection; calls at once take one each, and keep them."""

    async def work() -> None:
        for _ in range(3):
            assert (await side.get(server.url)).content == b"ok"
        assert server.connections == 1
        go_on.clear()
        held = [await side.get(server.url, stream=True) for _ in range(3)]
        assert server.connections == 3
        go_on.set()
        assert [await side.read(response) for response in held] == [b"ok"] * 3
        go_on.clear()
        held = [await side.get(server.url, stream=True) for _ in range(3)]
        go_on.set()
        for response in held:
            await side.read(response)
        assert server.connections == 3

    go_on = threading.Event()
    go_on.set()
    with peer(in_two_parts(go_on)) as server:
        side(work)


def test_a_connection_that_the_server_ended_is_not_used(side: Side) -> None:
    """The server's goodbye while a connection rests: the next call opens another one."""

    async def work() -> None:
        for _ in range(3):
            assert (await side.get(server.url)).content == b"ok"
            assert await side.gone(server)

    with peer(answering(OK, None)) as server:
        side(work)
        assert [number for number, _ in server.requests] == [1, 2, 3]


def test_nothing_is_sent_twice(side: Side) -> None:
    """A connection that ends without an answer is an error: nobody knows what the request did."""

    def script(number: int, request: bytes) -> list[bytes | None]:
        return [None] if len(server.requests) == 2 else [OK]

    async def work() -> None:
        await side.send("POST", server.url)
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await side.send("POST", server.url)
        assert len(server.requests) == 2
        assert (await side.send("POST", server.url)).content == b"ok"

    with peer(script) as server:
        side(work)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 2",
        b"nonsense\r\n\r\n",
    ],
    ids=["short", "short chunk", "two lengths", "endless head", "half a head", "no http"],
)
def test_broken_answers(side: Side, answer: bytes) -> None:
    """An answer that is cut off or no HTTP is an error of httpx2's, and its connection is closed."""

    def script(number: int, request: bytes) -> list[bytes | None]:
        return [answer, None] if number == 1 else [OK]

    async def work() -> None:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await side.send("POST", server.url)
        assert (await side.send("POST", server.url)).content == b"ok"

    with peer(script) as server:
        side(work)


def test_answers_of_every_framing(side: Side) -> None:
    """HEAD, 204, 100 before the answer, chunks, an end by closing, gzip: httpx2 sees what was sent."""
    packed = gzip.compress(b"hello")
    answers: list[tuple[str, bytes, bytes]] = [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b""),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(packed), packed),
            b"hello",
        ),
    ]

    def script(number: int, request: bytes) -> list[bytes | None]:
        return [answers[len(server.requests) - 1][1]]

    async def work() -> None:
        for method, _, body in answers:
            response = await side.send(method, server.url)
            assert response.content == body
            assert (response.http_version, response.is_success) == ("HTTP/1.1", True)
        assert server.connections == 1

    with peer(script) as server:
        side(work)

    async def closing() -> None:
        response = await side.get(other.url)
        assert (response.content, response.http_version) == (b"to the end", "HTTP/1.0")
        assert response.reason_phrase == "Fine"
        await side.get(other.url)
        assert other.connections == 2

    with peer(answering(b"HTTP/1.0 200 Fine\r\nX-A: 1\r\n\r\nto the end", None)) as other:
        side(closing)


def test_headers_go_and_come_as_they_are(side: Side) -> None:
    """Order, spelling and repetition stay, nothing is added, no redirect followed, no cookie kept."""
    answer = (
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /x\r\nX-B: 1\r\nx-b: 2\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    given = [("Host", "elsewhere"), ("X-b", "1"), ("x-B", "2"), ("X-Text", "é".encode())]

    async def work() -> None:
        for _ in range(2):
            request = httpx2.Request("GET", f"{server.url}a%2Fb?q=%20+", headers=given)  # type: ignore[arg-type]
            transport: Any = side.io.transport("pool")
            if side.blocking:
                response = transport.handle_request(request)
            else:
                response = await transport.handle_async_request(request)
            await side.read(response)
            assert response.status_code == 302
            assert [name for name, _ in response.headers.raw][2:4] == [b"X-B", b"x-b"]

    with peer(answering(answer)) as server:
        side(work)
        expected = (
            b"GET /a%2Fb?q=%20+ HTTP/1.1\r\nHost: elsewhere\r\nX-b: 1\r\nx-B: 2\r\nX-Text: "
            + "é".encode()
            + b"\r\n\r\n"
        )
        if side.kind == "aiohttp":  # which has one spelling for a name
            expected = expected.replace(b"x-B", b"X-b")
        assert [request for _, request in server.requests] == [expected] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("X-A", "1\r\nX-B: 2"), ("X-A\r\nX-B", "1"), ("X A", "1"), ("X-A", "\0")]
)
def test_no_header_can_smuggle_another(side: Side, name: str, value: str) -> None:
    """A name or value that would become two lines is refused before anything is sent."""

    async def work() -> None:
        with pytest.raises(httpx2.LocalProtocolError):
            await side.get(server.url, headers={name: value})
        assert (await side.get(server.url)).content == b"ok"

    with peer(answering(OK)) as server:
        side(work)
        assert len(server.requests) == 1


def test_bodies_in_memory_and_made_while_sent(side: Side) -> None:
    """A body arrives whole: small, large, in chunks, with a length of the caller's."""

    async def work() -> None:
        large = bytes(range(256)) * 4000
        for body in (b"small", large):
            await side.send("POST", server.url, content=body)
            assert server.requests[-1][1].endswith(b"\r\n\r\n" + body)
        await side.send("POST", server.url, content=side.stream(b"one", b"two"))
        assert server.requests[-1][1].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        length = {"Content-Length": "6"}
        await side.send("POST", server.url, content=side.stream(b"one", b"two"), headers=length)
        assert server.requests[-1][1].endswith(b"\r\n\r\nonetwo")
        await side.send("POST", server.url, content=b"after")
        assert server.connections == 1

    with peer(answering(OK)) as server:
        side(work)


@pytest.mark.parametrize("kind", ["blocking", "httpx2"])
def test_an_early_refusal_is_the_answer(kind: str) -> None:
    """A server that refuses an upload before it has read it is heard, and not the broken pipe.

    (aiohttp hears it sometimes.)
    """
    side = Side(kind)
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def work() -> None:
        parts = [b"x" * 65536] * 20
        response = await side.send(
            "POST", server.url, content=side.stream(*parts), headers={"X-Early": "1"}
        )
        assert response.status_code == 413

    def script(number: int, request: bytes) -> list[bytes | None]:
        return [refused]

    with peer(script) as server:
        side(work)


def test_timeouts(side: Side) -> None:
    """Each of httpx2's timeouts ends in its own exception, and the pool goes on."""

    def script(number: int, request: bytes) -> list[bytes | None]:
        if b"/never" in request:
            go_on.wait(30)
            return [None]
        return [OK]

    async def work() -> None:
        with pytest.raises(httpx2.ReadTimeout):
            await side.get(f"{server.url}never", timeout=httpx2.Timeout(5, read=0.1))
        with pytest.raises(httpx2.WriteTimeout):
            await side.send(
                "POST",
                f"{server.url}never",
                content=b"x" * 50_000_000,
                headers={"X-Early": "1"},
                timeout=httpx2.Timeout(5, write=0.1),
            )
        with pytest.raises(httpx2.ConnectTimeout):
            await side.get(f"http://127.0.0.1:{full.getsockname()[1]}/", timeout=0.2)
        assert (await side.get(server.url)).content == b"ok"
        # asyncio keeps a connection with unsent bytes until the other side has gone.
        go_on.set()
        for _ in range(2):
            assert await side.gone(server)
        await side.pause(0.05)

    go_on = threading.Event()
    # A listener whose queue is full answers to nobody.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = []
        for _ in range(4):
            made = socket.socket()
            made.setblocking(False)
            with suppress(BlockingIOError):
                made.connect(full.getsockname())
            waiting.append(made)
        with peer(script) as server:
            side(work)
        for made in waiting:
            made.close()


def test_the_limit_of_connections(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds all connections in use waits, and is told by a timeout; a free one goes on."""
    for module in (io_async, io_blocking, io_aiohttp):
        monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    told = httpx2.ConnectTimeout if side.kind == "aiohttp" else httpx2.PoolTimeout

    async def work() -> None:
        held = [await side.get(server.url, stream=True) for _ in range(2)]
        for _ in range(2):
            with pytest.raises(told):
                await side.get(server.url, timeout=httpx2.Timeout(5, pool=0.05))
        await side.end(held[0])
        go_on.set()
        assert (await side.get(server.url)).content == b"ok"
        await side.read(held[1])
        for url in ("http://127.0.0.1:1/", server.url, server.url):
            with suppress(httpx2.ConnectError):
                await side.get(url)

    go_on = threading.Event()
    with peer(in_two_parts(go_on)) as server:
        side(work)


def test_an_answer_that_is_not_read(side: Side) -> None:
    """Leaving an answer early ends its connection, because the rest of it would come on it."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"

    async def work() -> None:
        response = await side.get(server.url, stream=True)
        await side.end(response)
        await side.end(response)
        assert await side.gone(server)

    with peer(answering(endless)) as server:
        side(work)


def test_only_the_webs_schemes(side: Side) -> None:
    """Any other scheme is refused, as httpx2 does it."""

    async def work() -> None:
        with pytest.raises(httpx2.UnsupportedProtocol):
            await side.get("ftp://127.0.0.1/")

    side(work)


def test_an_address_that_nobody_configured(side: Side) -> None:
    """A client's call is held to the same addresses as the gate's own: nothing is sent to a private
    one."""
    stranger = Side(side.kind)
    stranger.io = BlockingIO() if side.blocking else AsyncIO(side.kind)

    async def work() -> None:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            with pytest.raises(AddressRefused):
                await stranger.get(url)

    with peer(answering(OK)) as server:
        stranger(work)
        assert server.connections == 0


@pytest.mark.parametrize("kind", ["httpx2", "aiohttp"])
def test_a_cancelled_call_leaves_nothing_behind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler whose client has gone: the connection is closed and its place is free again."""
    monkeypatch.setattr(io_async, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(io_aiohttp, "MAX_CONNECTIONS", 1)
    side = Side(kind)

    def script(number: int, request: bytes) -> list[bytes | None]:
        return [] if b"/never" in request else [OK]

    async def work() -> None:
        for _ in range(3):
            task = asyncio.create_task(side.get(f"{server.url}never"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await side.gone(server)
        assert (await side.get(server.url)).content == b"ok"

    with peer(script) as server:
        side(work)


def test_an_io_that_is_dropped_closes_its_connections() -> None:
    """An application that is let go of leaves no open connection behind."""
    side = Side("blocking")
    with peer(answering(OK)) as server:
        run(side.get(server.url))
        del side
        gc.collect()
        assert server.ended.acquire(timeout=10)


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for a host that signs itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example", "unknown issuer"])
def test_tls(side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A certificate must be for the host that was asked for and from an issuer that is trusted."""
    host = "localhost" if name == "unknown issuer" else name
    file, context = certificate(tmp_path, host)
    trusting = ssl.create_default_context(cafile=None if name == "unknown issuer" else str(file))
    monkeypatch.setattr(io_transport, "_context", trusting)
    side.io.trust(frozenset({"localhost"}))

    async def work() -> None:
        url = server.url.replace("127.0.0.1", "localhost")
        if name != "localhost":
            with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
                await side.get(url)
            return
        for _ in range(3):
            response = await side.send("POST", url, content=b"x" * 300_000)
            assert response.content == b"ok"
        assert server.connections == 1

    with peer(answering(OK), context) as server:
        side(work)
        assert len(server.requests) == (3 if name == "localhost" else 0)
