"""FastAPI under uvicorn, hypercorn and granian, started for real, with one worker and with two."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .serving import ASGI_SERVERS
from .site import Site, cookies, no_bleeding, site_on, who, whole_way


@pytest.fixture(params=list(ASGI_SERVERS), scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A FastAPI site on each server, shared by the tests of this file."""
    folder: Path = tmp_path_factory.mktemp("site")
    with site_on(request.param, "fastapi_app:app", folder) as found:
        yield found
    # Every worker that ran the application's startup has run its shutdown too.
    started = {path.name.partition("-")[2] for path in folder.glob("started-*")}
    stopped = {path.name.partition("-")[2] for path in folder.glob("stopped-*")}
    assert started == stopped, request.param
    assert len(started) == (2 if request.param.endswith("2-workers") else 1)


@pytest.fixture
def signed_in(site: Site) -> httpx2.Client:
    """A browser that is signed in with spotify as ada."""
    browser = site.browser()
    site.login(browser, "spotify")
    for name in ("go", "later"):
        (site.folder / name).unlink(missing_ok=True)
    return browser


def test_whole_way(site: Site) -> None:
    """Sign in, link, call from async and plain handlers, 20 at once, sign out; by two workers too."""
    whole_way(site, calls=("/call", "/sync"))


def test_no_bleeding(site: Site) -> None:
    """200 interleaved requests of two users, and nobody meets the other's account (row 61)."""
    no_bleeding(site)


def test_state_is_of_one_request(site: Site, signed_in: httpx2.Client) -> None:
    """The lifespan's state is there beside ours; what a request leaves in it, no other one finds."""
    ours = ["greeting", "oauth", "oauthgate", "services"]
    for _ in range(5):
        found = signed_in.get("/state").json()
        assert found["greeting"] == "hello"
        assert found["names"] == ours


def test_stream_is_not_held_back(site: Site, signed_in: httpx2.Client) -> None:
    """The first event arrives while the handler still waits to write the second (row 112)."""
    with signed_in.stream("GET", "/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "set-cookie" not in answer.headers
        parts = answer.iter_text()
        assert next(parts) == "data: first\n\n"
        # The handler goes on only now: a gate that collects the answer would wait for ever.
        (site.folder / "go").touch()
        assert "".join(parts) == "data: 1001\n\n"


def test_background_task_calls_a_service(site: Site, signed_in: httpx2.Client) -> None:
    """A task that runs after the answer still has its client (row 112)."""
    assert signed_in.post("/later").json() == {"accepted": True}
    mark = site.folder / "later"
    assert wait_for(lambda: mark.exists() and mark.read_text() == "1001")


def test_websocket(site: Site, signed_in: httpx2.Client) -> None:
    """A socket knows its visitor and calls the service; messages pass both ways untouched (row 112)."""
    with socket(site, signed_in, site.origin) as connection:
        connection.send("hello")
        assert connection.recv(timeout=10) == "hello"
        connection.send("who")
        assert json.loads(connection.recv(timeout=10))["services"] == ["spotify"]
        connection.send("call spotify")
        assert json.loads(connection.recv(timeout=10))["id"] == "1001"


@pytest.mark.parametrize("route", ["/logout", "/spotify/unlink"])
def test_websocket_outlives_its_session(site: Site, signed_in: httpx2.Client, route: str) -> None:
    """Who signs out or unlinks in another tab ends the client of a socket still open (row 112)."""
    with socket(site, signed_in, site.origin) as connection:
        connection.send("call spotify")
        assert json.loads(connection.recv(timeout=10))["id"] == "1001"
        assert site.post(signed_in, route).status_code in (200, 303)
        connection.send("hello")
        assert connection.recv(timeout=10) == "hello"
        connection.send("call spotify")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


def test_websocket_of_a_foreign_page_has_no_identity(site: Site, signed_in: httpx2.Client) -> None:
    """Another site's page opens a socket with our cookie: it is accepted, as nobody's (row 112)."""
    for origin in ("https://evil.example", f"{site.origin}.evil.example", "null"):
        with socket(site, signed_in, origin) as connection:
            connection.send("who")
            assert json.loads(connection.recv(timeout=10))["user_id"] is None


def test_websocket_without_the_link_is_closed(site: Site, signed_in: httpx2.Client) -> None:
    """A missing link in a socket ends it with a code of its own, not with a server error."""
    with socket(site, signed_in, site.origin) as connection:
        connection.send("call twitter")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
def test_no_bleeding_over_http2(server: str, tmp_path: Path) -> None:
    """100 requests of two users at once on one HTTP/2 connection, and none bleeds (row 61)."""
    with site_on(server, "fastapi_app:app", tmp_path) as site:
        people = {}
        for account, number in (("ada", "1001"), ("grace", "1002")):
            browser = site.browser()
            site.login(browser, "spotify", account)
            people[number] = cookies(browser)
        numbers = ["1001", "1002"] * 50

        async def ask() -> list[str]:
            async with httpx2.AsyncClient(base_url=site.base, http1=False, http2=True) as client:
                answers = await asyncio.gather(
                    *(client.get("/call/spotify/me", headers=people[number]) for number in numbers)
                )
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            return [answer.json()["id"] for answer in answers]

        assert asyncio.run(ask()) == numbers


def test_anonymous_request(site: Site) -> None:
    """Nobody is signed in without a cookie, and the answer carries nothing of the gate's."""
    browser = site.browser()
    assert who(browser)["user_id"] is None
    assert "set-cookie" not in browser.get("/who").headers


def socket(
    site: Site, browser: httpx2.Client, origin: str
) -> contextlib.AbstractContextManager[ClientConnection]:
    host = urlsplit(site.base).netloc
    headers = {"Origin": origin, "Cookie": cookies(browser)["cookie"]}
    return connect(f"ws://{host}/ws", additional_headers=headers, open_timeout=10, close_timeout=5)


def wait_for(seen: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `seen()` became true in time."""
    until = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
