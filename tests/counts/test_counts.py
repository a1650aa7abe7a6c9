"""The numbers that the design promises: store calls, writes, cookies, connections, threads.

Counts, never times.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

import oauthgate
from oauthgate import io_transport
from oauthgate.gate import Gate
from oauthgate.testing import Account, LocalProvider
from tests.flows.steps import SESSION, cookie_header, counting, set_cookies, who
from tests.support import BASE, Kind, SiteUnderTest, make_config

#: What a browser sends along that is not ours, near-misses of our cookie's name included.
FOREIGN = "theme=dark; oauthgate2=x; xoauthgate=y; Oauthgate=z; oauthgate_=1; csrftoken=oauthgate"


class Untouched:
    """A WSGI result that can be told from every copy of it."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"ok"])


def environ(**extra: str) -> dict[str, Any]:
    found = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/page",
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
    }
    return {**found, "SERVER_NAME": "localhost", "SERVER_PORT": "80", **extra}


@pytest.mark.parametrize("cookies", [None, FOREIGN])
def test_wsgi_request_without_our_cookie(tmp_path: Path, cookies: str | None) -> None:
    """No store call, and the app's own iterable, start_response and environ go through untouched."""
    result = Untouched()
    seen: list[Any] = []

    def app(given: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        seen.extend((given, start))
        start("200 OK", [("X-App", "1")])
        return result

    gate = oauthgate.WSGIGate(app, make_config("http://localhost:1", tmp_path))
    store = counting(gate.gate)
    sent: list[Any] = []

    def start_response(*args: object) -> None:
        sent.append(args)

    request = environ(**({"HTTP_COOKIE": cookies} if cookies else {}))
    assert gate(request, start_response) is result
    assert seen == [request, start_response] and seen[0] is request and seen[1] is start_response
    assert sent == [("200 OK", [("X-App", "1")])]
    assert not store.count and not (tmp_path / "gate.db").exists()
    first = request[oauthgate.wsgi.SERVICES]
    again = environ()
    gate(again, start_response)
    assert again[oauthgate.wsgi.SERVICES] is first, "the empty services are made once"


@pytest.mark.parametrize("cookies", [None, FOREIGN])
def test_asgi_request_without_our_cookie(tmp_path: Path, cookies: str | None) -> None:
    """No store call; the app gets the server's own scope, receive and send."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send, scope["state"]["services"]))

    async def receive() -> Any:
        raise AssertionError("the gate reads nothing of an app's request")

    async def send(message: object) -> None:
        raise AssertionError("the gate sends nothing of its own")

    gate = oauthgate.ASGIGate(app, make_config("http://localhost:1", tmp_path))
    store = counting(gate.gate)
    headers = [(b"cookie", cookies.encode())] if cookies else []
    for _ in range(2):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/page",
            "query_string": b"",
            "headers": headers,
        }
        asyncio.run(gate(scope, receive, send))
        assert seen[-1][0] is scope and seen[-1][1] is receive and seen[-1][2] is send
    assert seen[0][3] is seen[1][3], "the empty services are made once"
    assert not store.count and not (tmp_path / "gate.db").exists()


def test_signed_in_request_is_one_read(site: SiteUnderTest) -> None:
    """A signed-in request reads the store once, the next ones not at all, and none sets a cookie."""
    browser = site.browser()
    site.login(browser, "twitter")
    site.link(browser, "spotify")
    store = counting(site.gate)
    answer = browser.get("/who")
    assert answer.json()["services"] == ["spotify", "twitter"]
    assert dict(store.count) == {"get": 1}
    assert not set_cookies(answer) and "vary" not in answer.headers
    assert browser.get("/who").json() == answer.json()
    assert dict(store.count) == {"get": 1}


def test_signed_in_call_is_one_read(site: SiteUnderTest) -> None:
    """A handler that calls a service costs no further look into the store."""
    browser = site.browser()
    site.login(browser)
    store = counting(site.gate)
    for _ in range(2):
        assert browser.get("/call/spotify/me").status_code == 200
    assert dict(store.count) == {"get": 1}


def test_a_thousand_steady_requests_write_nothing(
    site: SiteUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 requests of one session: 1 read while nobody writes, 0 writes, 0 cookies."""
    monkeypatch.setattr("oauthgate.gate.RECALL", 600.0)  # however slow this machine is
    browser = site.browser()
    site.login(browser)
    store = counting(site.gate)
    for _ in range(1000):
        assert not set_cookies(browser.get("/who"))
    assert dict(store.count) == {"get": 1}


def test_a_thousand_anonymous_logins_write_nothing(site: SiteUnderTest, tmp_path: Path) -> None:
    """Starting 1,000 sign-ins writes no row and calls no store (row 109)."""
    store = counting(site.gate)
    for number in range(1000):
        name = "corp" if number % 2 else "spotify"
        assert site.browser().get(f"/_oauth/{name}/login").status_code == 303
    assert not store.count
    assert not (tmp_path / "gate.db").exists()


@pytest.mark.parametrize("links", [1, 20])
def test_the_cookie_stays_small(site: SiteUnderTest, provider: LocalProvider, links: int) -> None:
    """The session cookie has at most 100 bytes, name included, with 1 link and with 20 (row 56)."""
    browser = site.browser()
    for number in range(links):
        identifier = str(5000 + number)
        provider.accounts[identifier] = Account(id=identifier, username=f"user{number}")
        if number == 0:
            site.login(browser, account=identifier)
        else:
            site.link(browser, "spotify", account=identifier)
    assert len(who(browser)["links"]) == links
    assert len(f"__Host-{SESSION}={browser.cookies.get(SESSION)}") <= 100
    assert [item.name for item in browser.cookies.jar] == [SESSION]


class Proxy:
    """A TCP relay that counts the connections it accepts."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._relay, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()


@pytest.fixture
def proxy(provider_url: str) -> Iterator[Proxy]:
    """A counting relay in front of the provider."""
    found = Proxy(provider_url)
    yield found
    found.close()


@pytest.mark.parametrize("route", ["call", "sync"])
def test_one_connection_for_a_hundred_calls(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
) -> None:
    """100 calls of a service open 1 connection to the provider and build the TLS context once."""
    monkeypatch.setattr(io_transport, "_context", None)
    monkeypatch.setattr(io_transport, "contexts_built", 0)
    config["providers"]["spotify"]["api_base_url"] = f"{proxy.url}/api"
    site = make_site()
    browser = site.browser()
    site.login(browser)
    for _ in range(100):
        assert browser.get(f"/{route}/spotify/me").status_code == 200
    assert proxy.accepted == 1
    assert io_transport.contexts_built == 1


def test_many_visitors_share_the_connection(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], proxy: Proxy
) -> None:
    """Connections belong to the process: visitor after visitor uses the same one."""
    config["providers"]["spotify"]["api_base_url"] = f"{proxy.url}/api"
    site = make_site()
    for account in ("ada", "grace"):
        browser = site.browser()
        site.login(browser, account=account)
        for _ in range(10):
            assert browser.get("/call/spotify/me").json()["username"] == account
    assert proxy.accepted == 1


class _Threads:
    """Which threads SQLite was read on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[int] = set()
        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(lambda statement: self.note(statement))
            return connection

        monkeypatch.setattr(sqlite3, "connect", traced)

    def note(self, statement: str) -> None:
        if statement.startswith("SELECT value"):
            self.seen.add(threading.get_ident())


def test_no_thread_hop_on_reads(
    kind: Kind,
    config: dict[str, Any],
    make_site: Callable[[], SiteUnderTest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signed-in request reads SQLite on the thread that runs the request, and starts no thread."""
    threads = _Threads(monkeypatch)
    site = make_site()
    browser = site.browser()
    site.login(browser)
    threads.seen.clear()
    visiting: set[int] = set()
    visit = Gate.visit

    async def noting(self: Gate, ticket: Any, bearer: bool) -> Any:
        visiting.add(threading.get_ident())
        return await visit(self, ticket, bearer)

    monkeypatch.setattr(Gate, "visit", noting)
    before = threading.active_count()
    for _ in range(50):
        browser.get("/who")
    assert len(visiting) == 1
    assert threads.seen == visiting
    assert threading.active_count() <= before


def test_nothing_is_opened_before_its_use(site: SiteUnderTest, tmp_path: Path) -> None:
    """Installing a gate and serving an anonymous page opens neither store nor connection."""
    assert site.browser().get("/who").json()["user_id"] is None
    assert not (tmp_path / "gate.db").exists()


def test_an_unchanged_document_is_opened_once(
    site: SiteUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's sealed document is decrypted when it changed, not for every request."""
    browser = site.browser()
    site.login(browser)
    who(browser)
    keys = site.gate.keys
    opened: list[str] = []
    real = keys.open

    def open_(name: str, sealed: bytes) -> bytes:
        opened.append(name)
        return real(name, sealed)

    monkeypatch.setattr(keys, "open", open_)
    for _ in range(20):
        who(browser)
    assert not opened
    other = httpx2.Headers(cookie_header(browser))
    site.link(browser, "twitter")
    opened.clear()
    for _ in range(20):
        assert site.browser().get("/who", headers=other).json()["services"] == ["spotify", "twitter"]
    assert len(opened) <= 1
    assert site.base == BASE
