"""The connections themselves, on asyncio's transports and on plain sockets: http and https, and all that
the other side can do to them.

When a test is over, every connection has been let go of by the client, no task is left and nothing was
logged.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import anyio
import httpcore2
import httpx2
import pytest

from oauthgate import io_async, io_sockets, io_streams, io_transport
from oauthgate.io import Heartbeat, Reply
from oauthgate.stepping import run

from .by_hand import LARGE, Caller, Contexts, Host, Web, bodies, full_listener, length
from .test_transport import OK

REFUSED = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    return Contexts(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    """What is there already is not looked at again after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """No socket that only the garbage collector closes, and no complaint in the log."""
    monkeypatch.setattr(io_transport, "_context", contexts.client)
    yield
    gc.collect()
    said = [*caplog.get_records("call"), *caplog.records]
    assert [record.getMessage() for record in said if record.levelno >= logging.WARNING] == []


def over(*, kinds: str = "blocking httpx2", schemes: str = "http https") -> pytest.MarkDecorator:
    """The colours and schemes over which a scenario runs."""
    pairs = [(kind, scheme) for kind in kinds.split() for scheme in schemes.split()]
    return pytest.mark.parametrize("web", pairs, indirect=True, ids=lambda pair: "-".join(pair))


@pytest.fixture
def web(request: pytest.FixtureRequest, contexts: Contexts) -> Web:
    kind, scheme = request.param
    return Web(kind, scheme, contexts.server)


@over()
def test_a_connection_rests_and_is_used_again(web: Web) -> None:
    """Calls one after another take one connection, also after an answer in many pieces."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    def serve(caller: Caller) -> None:
        for answer in (
            OK,
            chunked,
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
        ):
            caller.head()
            for byte in answer:
                caller.socket.sendall(bytes([byte]))
        caller.answer(OK)

    async def work() -> None:
        for _ in range(5):
            assert (await web.get(host)).content == b"ok"

    with web.host(serve) as host:
        web(work)
        assert host.connections == 1


@over()
@pytest.mark.parametrize("how", ["half", "close_notify", "reset", "one byte", "an answer"])
def test_a_server_that_speaks_while_a_connection_rests(web: Web, how: str) -> None:
    """A goodbye, or bytes that nobody asked for: the next call takes another connection, without an
    error. So too when the event loop had no time to hear of it.
    """
    strays = {"one byte": b"x", "an answer": OK.replace(b"ok", b"no")}
    said = threading.Event()

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(OK)
        if caller.number < 3:
            resting.wait(10)
            if how in strays:
                caller.socket.sendall(strays[how])
            else:
                caller.hang_up(how)
            said.set()
        else:
            caller.answer(OK)

    async def work() -> None:
        for heard in (False, True):
            said.clear()
            resting.clear()
            assert (await web.get(host)).content == b"ok"
            resting.set()
            said.wait(10)
            if heard:
                await web.io.sleep(0.02)
        assert (await web.get(host)).content == b"ok"
        for _ in range(2):
            assert await web.gone(host)

    resting = threading.Event()
    with web.host(serve) as host:
        web(work)
        assert [number for number, _ in host.heads] == [1, 2, 3]


@over()
def test_bytes_after_an_answer(web: Web) -> None:
    """What comes together with an answer and is not part of it is nobody's: least of all the answer of
    whoever asks next.
    """

    def serve(caller: Caller) -> None:
        if caller.number == 1:
            caller.head()
            caller.socket.sendall(OK + OK.replace(b"ok", b"no"))
            return
        for _ in range(2):
            caller.head()
            caller.socket.sendall(OK)

    async def work() -> None:
        for _ in range(3):
            assert (await web.get(host)).content == b"ok"

    with web.host(serve) as host:
        web(work)
        assert [number for number, _ in host.heads] == [1, 2, 2]


@over(schemes="http")
def test_no_connection(web: Web) -> None:
    """A refusal, and a server that does not answer at all, each by name."""

    async def work() -> None:
        with full_listener() as full:
            silent = f"http://localhost:{full.getsockname()[1]}/"
            with pytest.raises(httpx2.ConnectTimeout, match="in time"):
                await web.side.get(silent, timeout=httpx2.Timeout(10, connect=0.2))
        with pytest.raises(httpx2.ConnectError, match="Errno"):
            await web.side.get(silent)

    web(work)


@over(schemes="https")
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("silent", httpx2.ConnectTimeout),
        ("plain", httpx2.ConnectError),
        ("half", httpx2.ConnectError),
        ("reset", httpx2.ConnectError),
        ("half at once", httpx2.ConnectError),
        ("reset at once", httpx2.ConnectError),
        ("forged", httpx2.ConnectError),
        ("forged, reset", httpx2.ConnectError),
        ("elsewhere", httpx2.ConnectError),
        ("unknown", httpx2.ConnectError),
    ],
)
def test_no_tls(web: Web, contexts: Contexts, how: str, told: type[Exception]) -> None:
    """Whatever comes instead of a handshake is an error by name, and nothing of it is believed. An
    answer in plain text that was put before the handshake is not the server's.
    """
    certificates = {"elsewhere": contexts.elsewhere, "unknown": contexts.unknown}

    def serve(caller: Caller) -> None:
        if caller.number > 1 or how in certificates:
            caller.secure()
            caller.answer(OK)
        if "forged" in how:
            caller.socket.sendall(OK.replace(b"ok", b"no"))
        if how == "forged":
            caller.secure()
            caller.answer(OK)
        elif how != "silent":
            if how in ("plain", "half", "reset"):
                caller.socket.recv(65536)
            if how == "plain":
                caller.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            else:
                caller.hang_up("reset" if "reset" in how else "half")

    async def work() -> None:
        host.context = certificates.get(how, contexts.server)
        early = "once" in how or "forged" in how
        options = web.pausing("connection.connect_tcp.complete", 0.05) if early else {}
        patience = httpx2.Timeout(10, connect=0.3 if how == "silent" else 10)
        with pytest.raises(told) as caught:
            await web.get(host, timeout=patience, **options)
        assert str(caught.value)
        if how in certificates:
            assert "certificate verify failed" in str(caught.value)
        assert await web.gone(host)
        host.context = contexts.server
        assert (await web.get(host)).content == b"ok"
        assert [number for number, _ in host.heads] == [2]

    with web.host(serve, bare=True) as host:
        web(work)


@over()
@pytest.mark.parametrize("how", ["half", "reset"])
@pytest.mark.parametrize("at", ["head", "body", "chunk", "end"])
def test_an_answer_that_breaks_off(web: Web, at: str, how: str) -> None:
    """Half of an answer is an error and not an answer; one that lasts until the end of its connection is
    whole unless the connection broke.
    """
    said = {
        "head": b"HTTP/1.1 200 OK\r\nContent-Le",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        "end": b"HTTP/1.0 200 OK\r\n\r\nok",
    }

    def serve(caller: Caller) -> None:
        if caller.number == 1:
            caller.head()
            caller.socket.sendall(said[at])
            caller.host.over.wait(0.05)
            caller.hang_up(how)
        else:
            caller.answer(OK)

    async def work() -> None:
        # `ssl` takes a broken connection for one that ended without a goodbye.
        if at == "end" and (how == "half" or (web.blocking and web.scheme == "https")):
            assert (await web.get(host)).content == b"ok"
        else:
            with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)) as caught:
                await web.get(host)
            assert str(caught.value)
        assert await web.gone(host)
        assert (await web.get(host)).content == b"ok"

    with web.host(serve) as host:
        web(work)
        assert [number for number, _ in host.heads] == [1, 2]


@over()
def test_much_is_carried_whole(web: Web) -> None:
    """20 MB each way, in one piece and in many, on one connection."""

    def serve(caller: Caller) -> None:
        while True:
            caller.head()
            read = hashlib.sha256()
            left = len(LARGE)
            while left:
                piece = caller.socket.recv(min(left, 1_000_000))
                if not piece:
                    return
                read.update(piece)
                left -= len(piece)
            head = (
                f"HTTP/1.1 200 OK\r\nX-Read: {read.hexdigest()}\r\nContent-Length: {len(LARGE)}\r\n\r\n"
            )
            caller.socket.sendall(head.encode() + LARGE)

    async def work() -> None:
        for body in bodies(web, LARGE):
            response = await web.post(host, body, headers=length(LARGE), timeout=20)
            assert response.headers["X-Read"] == hashlib.sha256(LARGE).hexdigest()
            assert response.content == LARGE

    with web.host(serve) as host:
        web(work)
        assert host.connections == 1


@over()
def test_a_slow_reader_holds_the_server_back(web: Web) -> None:
    """What nobody reads is not fetched: the server's sending comes to a stop, and goes on."""
    sent = 0

    def serve(caller: Caller) -> None:
        nonlocal sent
        caller.head()
        caller.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * len(LARGE)))
        for _ in range(3):
            for start in range(0, len(LARGE), 50_000):
                caller.socket.sendall(LARGE[start : start + 50_000])
                sent += 50_000
        caller.answer(OK)

    async def work() -> None:
        response = await web.get(host, stream=True, timeout=20)
        before = -1
        while before != sent:
            before = sent
            await web.io.sleep(0.2)
        assert sent < 30_000_000
        assert await web.side.read(response) == LARGE * 3
        assert (await web.get(host)).content == b"ok"

    with web.host(serve) as host:
        web(work)
        assert host.connections == 1


@over(kinds="httpx2")
def test_an_upload_leaves_the_loop_to_others(web: Web) -> None:
    """A body that is made without a pause is no reason for other tasks to wait until it is sent."""
    turns = 0
    longest = 0

    def serve(caller: Caller) -> None:
        caller.head()
        left = len(LARGE)
        while left:
            left -= len(caller.socket.recv(1_000_000))
        caller.socket.sendall(OK)

    async def ticking() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def body() -> AsyncIterator[bytes]:
        nonlocal longest
        at, since = turns, 0
        for start in range(0, len(LARGE), 10_000):
            if turns != at:
                at, since = turns, 0
            since += 10_000
            longest = max(longest, since)
            yield LARGE[start : start + 10_000]

    async def work() -> None:
        other = asyncio.create_task(ticking())
        assert (await web.post(host, body(), headers=length(LARGE))).content == b"ok"
        other.cancel()
        with suppress(asyncio.CancelledError):
            await other

    with web.host(serve) as host:
        web(work)
    assert longest < 200_000


@over()
@pytest.mark.parametrize("whole", [True, False])
def test_an_upload_that_is_refused(web: Web, whole: bool) -> None:
    """An answer that comes while the upload goes on is the answer, from a server that reads on."""

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(REFUSED)
        while caller.socket.recv(65536):
            pass

    async def work() -> None:
        for _ in range(3):
            body = bodies(web, LARGE)[0 if whole else 1]
            response = await web.post(host, body, headers=length(LARGE))
            assert (response.status_code, response.content) == (413, b"no")
            assert await web.gone(host)

    with web.host(serve) as host:
        web(work)


@over(kinds="httpx2")
@pytest.mark.parametrize("whole", [True, False])
def test_an_upload_that_nobody_reads_any_more(web: Web, whole: bool) -> None:
    """A server that answers, says goodbye and reads nothing more is heard before any timeout."""

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(REFUSED)
        caller.hang_up("close_notify")
        caller.host.over.wait(20)

    async def work() -> None:
        body = bodies(web, LARGE)[0 if whole else 1]
        response = await web.post(host, body, headers=length(LARGE), timeout=10)
        assert response.status_code == 413

    with web.host(serve) as host:
        web(work)


@over()
def test_a_refusal_that_is_followed_by_a_reset(web: Web) -> None:
    """A server that answers and hangs up while bytes for it are on the way: to write more of them would
    take its answer away, so it is heard first. (The event loop has no time to, before.)
    """
    answered = threading.Event()

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(REFUSED)
        caller.hang_up("close")
        answered.set()

    def pieces() -> Iterator[bytes]:
        yield LARGE[:10_000]
        answered.wait(10)
        for _ in range(5):
            yield LARGE[:10_000]

    async def suspending() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    async def work() -> None:
        for _ in range(5):
            answered.clear()
            body: Any = pieces() if web.blocking else suspending()
            assert (await web.post(host, body, headers={"Content-Length": "60000"})).status_code == 413
            assert await web.gone(host)

    with web.host(serve) as host:
        web(work)


@over()
@pytest.mark.parametrize("whole", [True, False])
def test_a_refusal_in_the_middle_of_a_reset(web: Web, whole: bool) -> None:
    """The same while the upload goes on: the answer when it came through, or an error by name."""

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.recv(100_000)
        caller.socket.sendall(REFUSED)
        caller.hang_up("close")

    async def work() -> None:
        for _ in range(5):
            body = bodies(web, LARGE)[0 if whole else 1]
            with suppress(httpx2.ReadError, httpx2.RemoteProtocolError):
                assert (await web.post(host, body, headers=length(LARGE))).status_code == 413
            assert await web.gone(host)

    with web.host(serve) as host:
        web(work)


@over()
@pytest.mark.parametrize("what", ["write", "write in pieces", "head", "body", "drip"])
def test_time_is_up(web: Web, what: str) -> None:
    """Each phase has its end, and so has the whole for one who sends a byte now and then."""

    def serve(caller: Caller) -> None:
        caller.head()
        if caller.number > 1:
            caller.socket.sendall(OK)
            caller.answer(OK)
        if what == "body":
            caller.socket.sendall(OK[:-1])
        elif what == "drip":
            caller.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not caller.host.over.wait(0.02):
                caller.socket.sendall(b"x")
        else:
            read_on.wait(20)

    async def work() -> None:
        if "write" in what:
            body = bodies(web, LARGE)[0 if what == "write" else 1]
            with pytest.raises(httpx2.WriteTimeout):
                timeout = httpx2.Timeout(20, write=0.2)
                await web.post(host, body, headers=length(LARGE), timeout=timeout)
        elif what == "drip":
            request = httpx2.Request("GET", web.url(host))
            with pytest.raises(httpx2.TimeoutException):
                await web.io.exchange("pool", request, deadline=0.3, limit=5000)
        else:
            with pytest.raises(httpx2.ReadTimeout):
                await web.get(host, timeout=httpx2.Timeout(20, read=0.1))
        read_on.set()
        assert await web.gone(host)
        assert (await web.get(host)).content == b"ok"

    read_on = threading.Event()
    with web.host(serve) as host:
        web(work)


STEPS = [
    "connection.connect_tcp.started",
    "connection.connect_tcp.complete",
    "connection.start_tls.started",
    "connection.start_tls.complete",
    "http11.send_request_headers.complete",
    "http11.send_request_body.started",
    "http11.send_request_body.complete",
    "http11.receive_response_headers.complete",
    "http11.receive_response_body.started",
    "http11.receive_response_body.complete",
]


@over(kinds="httpx2")
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_cancelled_at_each_step(web: Web, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """A call that is cancelled, once more while it cleans up, gives its place in the pool back and
    leaves no connection open.
    """
    monkeypatch.setattr(io_async, "MAX_CONNECTIONS", 1)
    cancelled = 0

    async def step(name: str, host: Host) -> None:
        async def trace(at: str, info: object) -> None:
            task = asyncio.current_task()
            assert task is not None
            if at == name or (again and at == "http11.response_closed.started" and task.cancelling()):
                task.cancel()

        await web.post(host, b"x" * 200_000, extensions={"trace": trace})

    def serve(caller: Caller) -> None:
        while True:
            caller.head()
            left = 200_000 if host.heads[-1][1].startswith(b"POST") else 0
            while left:
                piece = caller.socket.recv(left)
                if not piece:
                    return
                left -= len(piece)
            for byte in OK:
                caller.socket.sendall(bytes([byte]))

    async def work() -> None:
        nonlocal cancelled
        for name in STEPS if web.scheme == "https" else (each for each in STEPS if "tls" not in each):
            task = asyncio.create_task(step(name, host))
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            pool: Any = web.io.transport("pool")
            assert await answered(web, host)
            # The next step begins with no connection.
            await pool.aclose()

    with web.host(serve) as host:
        web(work)
    assert cancelled >= (8 if web.scheme == "https" else 6)


async def answered(web: Web, host: Host) -> bool:
    async with asyncio.timeout(10):
        return (await web.get(host)).content == b"ok"


@pytest.mark.parametrize(
    ("web", "phase"),
    [(("httpx2", "https"), "TLS")]
    + [
        (("httpx2", scheme), phase)
        for scheme in ("http", "https")
        for phase in ("connect", "write", "head", "body")
    ],
    indirect=["web"],
    ids=lambda given: given if isinstance(given, str) else given[1],
)
def test_cancelled_while_waiting(web: Web, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """A call whose caller goes away while the other side keeps silent: its connection is closed."""
    monkeypatch.setattr(io_async, "MAX_CONNECTIONS", 1)
    reached, read_on = threading.Event(), threading.Event()

    def serve(caller: Caller) -> None:
        first = caller.number == 1 and phase != "connect"
        if first and phase == "TLS":
            reached.set()
            return
        if web.scheme == "https":
            caller.secure()
        if not first:
            caller.answer(OK)
        caller.head()
        if phase == "body":
            caller.socket.sendall(OK[:-1])
        reached.set()
        if phase == "write":
            read_on.wait(20)

    async def work() -> None:
        port = full.getsockname()[1] if phase == "connect" else host.port
        url = f"{web.scheme}://localhost:{port}/"
        task = asyncio.create_task(
            web.side.send("POST", url, content=LARGE if phase == "write" else b"")
        )
        if phase != "connect":
            await asyncio.to_thread(reached.wait, 10)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        read_on.set()
        assert phase == "connect" or await web.gone(host)
        assert await answered(web, host)

    with full_listener() as full, web.host(serve, bare=True) as host:
        web(work)


@over(kinds="httpx2")
def test_a_scope_that_is_cancelled(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """anyio cancels what runs in a scope at each of its awaits, again and again: the same."""
    monkeypatch.setattr(io_async, "MAX_CONNECTIONS", 1)

    def serve(caller: Caller) -> None:
        if caller.number > 1:
            caller.answer(OK)
        caller.head()

    async def work() -> None:
        with anyio.move_on_after(0.1) as scope:
            await web.get(host)
        assert scope.cancelled_caught
        assert await web.gone(host)
        assert await answered(web, host)

    with web.host(serve) as host:
        web(work)


@over(kinds="httpx2")
def test_an_answer_is_not_ended_by_its_reader(web: Web) -> None:
    """An answer that lasts until its connection ends, when the pool is closed meanwhile: an error, and
    not a short answer.
    """

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf")

    async def work() -> None:
        response = await web.get(host, stream=True)
        reading = asyncio.create_task(response.aread())
        await asyncio.sleep(0.05)
        await web.io.close()
        with pytest.raises(httpx2.ReadError):
            await reading

    with web.host(serve) as host:
        web(work)


@over(kinds="httpx2")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "loop's end"])
def test_the_end(web: Web, close: bool) -> None:
    """The end of the pool, or of the event loop, closes what rests and what is in use, and waits for
    nobody: not for a server that does not say goodbye, and not for one that said it and does no more.
    """

    def serve(caller: Caller) -> None:
        caller.head()
        caller.socket.sendall(OK if caller.number == 1 else OK[:-1])
        if caller.number == 3:
            caller.hang_up("close_notify")
        caller.host.over.wait(20)

    async def work() -> None:
        responses = [await web.get(host, stream=True) for _ in range(3)]
        await web.side.read(responses[0])
        uploads.append(asyncio.create_task(web.post(host, LARGE)))
        await asyncio.sleep(0.1)
        if close:
            await web.io.close()
            with pytest.raises(httpx2.NetworkError):
                await uploads[0]

    uploads: list[asyncio.Task[httpx2.Response]] = []
    with web.host(serve) as host:
        web(work, close=close)
        assert host.connections == 3


@over(kinds="httpx2")
def test_a_closed_pool_needs_its_loop_no_more(web: Web) -> None:
    """When it says that it is closed, its sockets are: the event loop may stop at once."""

    async def work() -> None:
        assert (await web.get(host)).content == b"ok"
        await web.io.close()

    with web.host(lambda caller: caller.answer(OK)) as host:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()
        gc.collect()  # says what is still open


@over()
def test_after_a_fork(web: Web) -> None:
    """A child opens connections of its own and says nothing on its parent's, also when it ends."""

    async def get() -> bool:
        return (await web.get(host)).content == b"ok"

    def child() -> int:
        fine = run(get()) if web.blocking else asyncio.run(get())
        gc.collect()
        return 0 if fine else 1

    async def work() -> None:
        assert await get()
        forked = os.fork()
        if forked == 0:
            try:
                os._exit(child())
            finally:
                os._exit(2)
        _, status = os.waitpid(forked, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await get()

    with web.host(lambda caller: caller.answer(OK)) as host:
        web(work)
        assert [number for number, _ in host.heads] == [1, 2, 1]


class Stop(Exception):
    """What a heartbeat raises."""


@over()
@pytest.mark.parametrize("at", ["head", "body"])
def test_a_heart_beats_while_an_answer_is_outstanding(web: Web, at: str) -> None:
    """It beats in every wait; what it raises comes out as it is, and the connection is closed."""
    beats = 0
    stop = False

    def serve(caller: Caller) -> None:
        while True:
            caller.head()
            said = 0 if at == "head" else len(OK) - 1
            caller.socket.sendall(OK[:said])
            enough.wait(10)
            caller.socket.sendall(OK[said:])

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            enough.set()
        if stop:
            raise Stop

    async def exchange() -> Reply:
        return await web.io.exchange(
            "pool",
            httpx2.Request("GET", web.url(host)),
            deadline=20,
            limit=1000,
            heartbeat=Heartbeat(0.03, beat),
        )

    async def work() -> None:
        nonlocal stop
        assert (await exchange()).content == b"ok"
        assert beats >= 3
        enough.clear()
        stop = True
        with pytest.raises(Stop):
            await exchange()
        enough.set()
        assert await web.gone(host)

    enough = threading.Event()
    with web.host(serve) as host:
        web(work)


@over(kinds="blocking", schemes="https")
def test_a_socket_without_tls(web: Web, contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssl` makes a socket without TLS of a connection that is over, and says nothing: not a byte is
    written to it or read from it.
    """

    class Careless:
        """Like that, on any connection."""

        set_alpn_protocols = contexts.client.set_alpn_protocols

        def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
            return contexts.client.wrap_socket(sock, do_handshake_on_connect=False, **options)

    monkeypatch.setattr(io_transport, "_context", Careless())
    read: list[bytes] = []

    def serve(caller: Caller) -> None:
        caller.socket.sendall(OK)
        read.append(caller.socket.recv(65536))

    async def work() -> None:
        with pytest.raises(httpx2.ConnectError):
            await web.get(host)
        assert await web.gone(host)

    with web.host(serve, bare=True) as host:
        web(work)
    assert b"".join(read) == b""


@over(schemes="http")
def test_what_a_stream_tells(web: Web) -> None:
    """A stream's addresses and socket, with the options that were asked for; one that the system does
    not know is an error by name.
    """
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def connect(*options: tuple[int, int, int]) -> Any:
        given = ("127.0.0.1", host.port, 5.0, "127.0.0.1", options)
        return io_sockets.connect(*given) if web.blocking else await io_streams.connect(*given)

    async def work() -> None:
        stream = await connect(option)
        found = stream.get_extra_info("socket")
        assert found.getsockopt(*option[:2])
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.get_extra_info("client_addr") == found.getsockname()
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", host.port)
        assert not stream.get_extra_info("is_readable")
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("anything") is None
        for _ in range(2):
            if web.blocking:
                stream.close()
            else:
                await stream.aclose()
        assert stream.get_extra_info("is_readable")
        assert await web.gone(host)
        with pytest.raises(httpcore2.ConnectError):
            await connect((socket.SOL_SOCKET, 99_999, 1))
        assert await web.gone(host)

    with web.host(lambda caller: None) as host:
        web(work)
