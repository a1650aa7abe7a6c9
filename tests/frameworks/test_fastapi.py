"""`oauthgate.fastapi`: dependencies for services and users, and what FastAPI's document says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, assert_type
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import oauthgate
from oauthgate import AsyncService, SyncService
from oauthgate.fastapi import CurrentUser, CurrentVisitor, Service
from tests.support import BASE, PAGE, SiteUnderTest

JSON = {"accept": "application/json"}


def make_app() -> FastAPI:
    app, mounted = FastAPI(), FastAPI()

    @app.get("/user")
    async def user(user: CurrentUser) -> dict[str, Any]:
        return {"user_id": user.user_id, "csrf_token": user.csrf_token}

    @app.get("/visitor")
    def visitor(visitor: CurrentVisitor) -> dict[str, Any]:
        return {"user_id": visitor.user_id}

    @app.get("/async")
    async def asynchronous(spotify: Annotated[AsyncService, Service("spotify")]) -> Any:
        return (await spotify.get("me")).json()

    @app.get("/default")
    async def default(spotify: AsyncService = Service("spotify")) -> Any:  # noqa: B008 - as FastAPI's own
        return (await spotify.get("me")).json()

    @app.get("/sync")
    def sync(spotify: Annotated[SyncService, Service("spotify", sync=True)]) -> Any:
        return spotify.get("me").json()

    @app.get("/scope")
    async def scoped(spotify: Annotated[AsyncService, Service("spotify", scope=["more"])]) -> Any:
        return list(spotify.scope)

    @app.get("/second")
    async def second(spotify: Annotated[AsyncService, Service("spotify:1002")]) -> Any:
        return (await spotify.get("me")).json()

    @app.get("/open")
    async def open_to_all() -> dict[str, bool]:
        return {"open": True}

    @mounted.get("/user")
    async def mounted_user(user: CurrentUser) -> dict[str, Any]:
        return {"user_id": user.user_id}

    @mounted.get("/raw")
    async def mounted_raw(request: Request) -> Any:
        return (await request.state.services["spotify"].get("me")).json()

    app.mount("/outer", Starlette(routes=[Mount("/inner", mounted)]))

    @app.websocket("/ws")
    async def socket(
        websocket: WebSocket, spotify: Annotated[AsyncService, Service("spotify")], user: CurrentUser
    ) -> None:
        await websocket.accept()
        await websocket.send_json([user.user_id, (await spotify.get("me")).json()["id"]])
        await websocket.close()

    return app


@pytest.fixture
def browser(config: dict[str, Any]) -> Iterator[TestClient]:
    app = make_app()
    oauthgate.install(app, config)
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        yield client


def sign_in(browser: httpx2.Client, provider: str = "spotify", account: str = "ada") -> None:
    started = browser.get(f"/_oauth/{provider}/login", headers=PAGE)
    browser.get(SiteUnderTest.authorize(started.headers["location"], account), headers=PAGE)


@pytest.mark.parametrize("path", ["/async", "/sync", "/default"])
def test_a_service(browser: TestClient, path: str) -> None:
    """A handler gets the client of its service, awaited or blocking."""
    sign_in(browser)
    assert browser.get(path).json()["id"] == "1001"


@pytest.mark.parametrize("path", ["/async", "/sync", "/default"])
def test_a_service_that_is_not_linked(browser: TestClient, path: str) -> None:
    """Without a link the handler is not called: a browser goes to make it, a program is told where."""
    answer = browser.get(path, headers=PAGE)
    assert answer.headers["location"].startswith(f"{BASE}/_oauth/spotify/link?next=%2F")
    refused = browser.get(path, headers=JSON)
    assert (refused.status_code, refused.json()["error"]) == (401, "link_required")


def test_more_scope(browser: TestClient) -> None:
    """A scope that was not granted is asked for."""
    sign_in(browser)
    refused = browser.get("/scope", headers=JSON)
    assert (refused.status_code, refused.json()["scope"]) == (401, ["more"])


def test_one_of_several_accounts(browser: TestClient) -> None:
    """A name may say which account."""
    sign_in(browser)
    assert browser.get("/second", headers=JSON).status_code == 401


def test_the_user(browser: TestClient) -> None:
    """Anonymous visitors are sent to the page with all ways to sign in, and come back from there."""
    refused = browser.get("/user?a=1", headers=JSON)
    assert (refused.status_code, refused.json()["error"]) == (401, "login_required")
    sent = browser.get("/user?a=1", headers=PAGE)
    assert sent.status_code == 303
    assert refused.json()["url"] == sent.headers["location"]
    url = urlsplit(sent.headers["location"])
    assert (url.path, parse_qs(url.query)) == ("/_oauth/", {"next": ["/user?a=1"]})
    page = browser.get(sent.headers["location"], headers=PAGE)
    assert page.text.count("login?next=%2Fuser%3Fa%3D1") == 3
    assert browser.get("/visitor").json() == {"user_id": None}
    sign_in(browser)
    assert browser.get("/user").json()["user_id"] == browser.get("/visitor").json()["user_id"]


@pytest.mark.parametrize("path", ["/outer/inner/user", "/outer/inner/raw"])
def test_a_mounted_application(browser: TestClient, path: str) -> None:
    """An application that is mounted in one answers as that one does, and comes back to its own page."""
    answer = browser.get(path, headers=JSON)
    assert answer.status_code == 401
    assert parse_qs(urlsplit(answer.json()["url"]).query)["next"] == [path]
    sent = browser.get(path, headers=PAGE)
    assert parse_qs(urlsplit(sent.headers["location"]).query)["next"] == [path]
    sign_in(browser)
    assert browser.get(path, headers=JSON).status_code == 200


def test_a_page_to_sign_in_leads_nowhere_else(browser: TestClient) -> None:
    """Where that page returns to is this site, whatever its address says (row 1)."""
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "/_oauth/logout"):
        page = browser.get("/_oauth/", params={"next": target}, headers=PAGE)
        assert "evil" not in page.text and page.text.count('login?next=%2F"') == 3


def test_a_socket(browser: TestClient) -> None:
    """The same dependencies serve a WebSocket."""
    sign_in(browser)
    with browser.websocket_connect("ws://localhost/ws") as socket:
        user_id, account = socket.receive_json()
    assert user_id and account == "1001"


def test_the_document(browser: TestClient) -> None:
    """The OpenAPI document names both ways to authenticate, on the routes that look at them."""
    document = browser.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["session_cookie"]["type"], schemes["session_cookie"]["in"]) == ("apiKey", "cookie")
    assert schemes["session_cookie"]["name"] == "__Host-oauthgate"
    assert (schemes["session_token"]["type"], schemes["session_token"]["scheme"]) == ("http", "bearer")
    either: list[dict[str, list[str]]] = [{"session_cookie": []}, {"session_token": []}]
    for path in ("/user", "/visitor", "/async", "/default", "/sync", "/scope"):
        assert document["paths"][path]["get"]["security"] == either, path
        assert "parameters" not in document["paths"][path]["get"], path
    assert "security" not in document["paths"]["/open"]["get"]


def test_without_a_gate() -> None:
    """An application that was not wrapped is told so."""
    with TestClient(make_app(), base_url=BASE) as client, pytest.raises(RuntimeError, match="install"):
        client.get("/user")


def test_types() -> None:
    """`Service` has the type of the client that the handler gets."""
    assert_type(Service("spotify"), AsyncService)
    assert_type(Service("spotify", sync=True), SyncService)
