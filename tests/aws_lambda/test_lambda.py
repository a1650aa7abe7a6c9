"""The gate in a Lambda function: ASGI through Mangum, WSGI through apig-wsgi, users in DynamoDB.

Every scenario runs behind each kind of front (`gateway.py`), at the root and below a base path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from apig_wsgi import make_lambda_handler
from mangum import Mangum
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import oauthgate
from oauthgate.testing import LocalProvider, running
from tests.servers.dynamodb import DynamoDB, dynamodb
from tests.stores.conftest import entered
from tests.stores.dynamodb_places import credentials, own
from tests.support import (
    PAGE,
    Kind,
    SiteUnderTest,
    flask_app,
    make_config,
    make_provider,
    starlette_app,
)

from .gateway import FRONTS, Front, Gateway, Handler

HOST = "https://abc.execute-api.eu-central-1.amazonaws.com"
PREFIXES = ["", "/live"]


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoDB]:
    with ExitStack() as stack:
        yield entered(stack, dynamodb())


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> Front:
    found: Front = request.param
    return found


@pytest.fixture(params=PREFIXES, ids=["root", "base path"])
def prefix(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def provider(prefix: str) -> LocalProvider:
    return make_provider(HOST + prefix)


@pytest.fixture
def config(
    provider: LocalProvider,
    prefix: str,
    server: DynamoDB,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[dict[str, Any]]:
    """The site at its public address; its users are in a table of DynamoDB."""
    credentials(monkeypatch)
    with running(provider) as url:
        found = make_config(url, tmp_path, HOST + prefix)
        found["oauthgate"] |= {"store": own(server.endpoint), "secret": "s" * 32}
        yield found


class Functions:
    """Handlers as docs/deployment.md shows them. Lambda ends the process; here they are closed."""

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        self._config = config
        self._prefix = prefix
        self._stack = ExitStack()

    def make(self, kind: Kind, lifespan: Literal["auto", "off"] = "off") -> Handler:
        """A new function: nothing of another one's is in its memory."""
        if kind == "asgi":
            asgi = starlette_app()
            oauthgate.install(asgi, self._config)
            handler: Handler = Mangum(asgi, api_gateway_base_path=self._prefix, lifespan=lifespan)
            return handler
        wsgi = flask_app()
        oauthgate.install(wsgi, self._config)
        self._stack.callback(wsgi.wsgi_app.close)  # type: ignore[attr-defined] # now the gate
        below = DispatcherMiddleware(NotFound(), {self._prefix: wsgi}) if self._prefix else wsgi
        return make_lambda_handler(below)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def functions(config: dict[str, Any], prefix: str) -> Iterator[Functions]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the one that Mangum finds
    found = Functions(config, prefix)
    yield found
    found.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


class Browser(httpx2.Client):
    """A browser whose requests the gateway takes from the site's public address."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(transport=gateway, base_url=HOST)

    def go(self, location: str, prefix: str, **kwargs: Any) -> httpx2.Response:
        """Follow a redirect that our site, or the provider, has sent."""
        url = urlsplit(location)
        assert not url.netloc or f"{url.scheme}://{url.netloc}" == HOST, location
        assert url.path.startswith(f"{prefix}/"), location
        return self.get(f"{url.path.removeprefix(prefix)}?{url.query}", headers=PAGE, **kwargs)


def sign_in(browser: Browser, prefix: str, provider: str, account: str = "ada") -> httpx2.Response:
    started = browser.get(f"/_oauth/{provider}/login", params={"next": "/who?a=1&a=2"}, headers=PAGE)
    assert started.status_code == 303, started.text
    return browser.go(SiteUnderTest.authorize(started.headers["location"], account), prefix)


def test_a_story(kind: Kind, functions: Functions, front: Front, prefix: str) -> None:
    """Sign in by OAuth 1.0a, link by OAuth 2, call both, sign out; each request is an event."""
    gateway = Gateway(functions.make(kind), front, prefix)
    with Browser(gateway) as browser:
        refused = browser.get("/call/spotify/me")
        assert refused.status_code == 401
        assert refused.json()["url"].startswith(f"{HOST}{prefix}/_oauth/spotify/link")
        answer = sign_in(browser, prefix, "twitter")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{HOST}{prefix}/who?a=1&a=2")
        # The session's cookie, the end of the flow's, and the mark of a change: none is lost.
        assert len(answer.headers.get_list("set-cookie")) == 3
        assert browser.go(answer.headers["location"], prefix).json()["services"] == ["twitter"]
        page = browser.get("/call/spotify/me", headers=PAGE)
        assert page.status_code == 303
        assert browser.go(page.headers["location"], prefix).status_code == 200
        session = browser.get("/_oauth/session").json()
        form = {"csrf_token": session["csrf_token"], "next": "/who"}
        started = browser.post("/_oauth/spotify/link", data=form, headers={"origin": HOST, **PAGE})
        assert started.status_code == 303, started.text
        linked = browser.go(SiteUnderTest.authorize(started.headers["location"]), prefix)
        assert linked.headers["location"] == f"{HOST}{prefix}/who"
        for service in ("twitter", "spotify"):
            assert browser.get(f"/call/{service}/me").json()["username"] == "ada"
        assert browser.get("/sync/spotify/me").json()["username"] == "ada"
        ended = browser.post("/_oauth/logout", data=form, headers={"origin": HOST, **PAGE})
        assert ended.status_code == 200
        assert browser.get("/who").json()["user_id"] is None
    assert json.dumps(gateway.events)  # an event is JSON, so nothing else went in


def test_cookies_that_came_one_by_one(
    kind: Kind, functions: Functions, front: Front, prefix: str
) -> None:
    """A browser with cookies of its application's beside ours is known all the same."""
    gateway = Gateway(functions.make(kind), front, prefix)
    with Browser(gateway) as browser:
        sign_in(browser, prefix, "corp")
        for name in ("aaa", "zzz"):
            browser.cookies.set(name, "x=1", domain=urlsplit(HOST).hostname or "")
        assert browser.get("/who").json()["user_id"]
        browser.cookies.clear()
        assert browser.get("/who").json()["user_id"] is None


def test_many_visitors_at_once(kind: Kind, functions: Functions, front: Front, prefix: str) -> None:
    """Flows that overlap, each event for another function: nothing is kept in any of them."""
    handlers = [functions.make(kind) for _ in range(3)]
    people = ["ada", "grace"]
    browsers = [Browser(Gateway(handlers[0], front, prefix)) for _ in people]
    ways: list[str] = []
    for browser in browsers:
        started = browser.get("/_oauth/spotify/login", params={"next": "/"}, headers=PAGE)
        ways.append(started.headers["location"])
    states = {parse_qs(urlsplit(way).query)["state"][0] for way in ways}
    assert len(states) == len(people)
    for browser, way, person in zip(browsers, ways, people, strict=True):
        browser._transport.handler = handlers[1]  # type: ignore[attr-defined] # a Gateway
        browser.go(SiteUnderTest.authorize(way, person), prefix)
    for browser, person in zip(browsers, people, strict=True):
        browser._transport.handler = handlers[2]  # type: ignore[attr-defined] # a Gateway
        assert browser.get("/call/spotify/me").json()["username"] == person
        browser.close()


def test_with_the_lifespan_of_every_event(functions: Functions, front: Front, prefix: str) -> None:
    """Mangum's default starts and stops the application around each event; that only costs time."""
    gateway = Gateway(functions.make("asgi", lifespan="auto"), front, prefix)
    with Browser(gateway) as browser:
        sign_in(browser, prefix, "spotify")
        for _ in range(3):
            assert browser.get("/call/spotify/me").json()["username"] == "ada"


def test_a_body_that_is_no_text(kind: Kind, functions: Functions, front: Front, prefix: str) -> None:
    """What a visitor posts may arrive in base64; ours are answered like those in clear."""
    gateway = Gateway(functions.make(kind), front, prefix)
    with Browser(gateway) as browser:
        sign_in(browser, prefix, "corp")
        token = browser.get("/_oauth/session").json()["csrf_token"]
        for body, status in ((f"csrf_token={token}&x=\xff".encode("latin-1"), 400), (b"\xff\xfe", 400)):
            answer = browser.post(
                "/_oauth/logout",
                content=body,
                headers={"content-type": "application/x-www-form-urlencoded", "origin": HOST},
            )
            assert gateway.events[-1]["isBase64Encoded"]
            assert answer.status_code in (status, 403), answer.text
