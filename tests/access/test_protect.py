"""`protect`: the sign-in or the link comes before the page, and the page afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

import oauthgate
from oauthgate.testing import LocalProvider
from tests.flows.steps import JSON, links, location, press, probing
from tests.support import BASE, PAGE, Kind, SiteUnderTest

MakeSite = Callable[[], SiteUnderTest]


@pytest.fixture
def protected(config: dict[str, Any], make_site: MakeSite) -> SiteUnderTest:
    config["access"] = {
        "protect": [
            "/who",
            {"path": "/call/spotify/*", "provider": "spotify", "scope": ["player"]},
            {"path": "/call/twitter/*", "provider": "twitter"},
        ]
    }
    return make_site()


def test_a_person_signs_in_and_comes_back(protected: SiteUnderTest) -> None:
    """A navigation is sent to the ways to sign in, and ends on the page it was for, query and all."""
    browser = protected.browser()
    sent = location(browser.get("/who?a=1&b=%2Fx", headers=PAGE))
    assert sent == f"{BASE}/_oauth/?next=%2Fwho%3Fa%3D1%26b%3D%252Fx"
    page = browser.get(sent, headers=PAGE)
    (login,) = [link for link in links(page) if "/spotify/login" in link]
    started = location(browser.get(login, headers=PAGE))
    back = location(browser.get(protected.authorize(started), headers=PAGE))
    assert back == f"{BASE}/who?a=1&b=%2Fx"
    assert browser.get(back, headers=PAGE).json()["profile"]["username"] == "ada"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_a_program_gets_401(protected: SiteUnderTest, method: str) -> None:
    """Any method of an anonymous request is answered 401, with where to sign in, and stores nothing."""
    answer = protected.browser().request(method, "/who", headers=JSON)
    assert answer.status_code == 401
    if method == "HEAD":
        assert answer.headers["content-length"] == "0"
    else:
        assert answer.json()["error"] == "login_required"
        assert answer.json()["url"].startswith(f"{BASE}/_oauth/?next=")
    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


def test_what_is_not_protected_is_as_before(protected: SiteUnderTest) -> None:
    """Other pages and the gate's own routes are open."""
    browser = protected.browser()
    assert browser.get("/").status_code == 200
    assert browser.get("/_oauth/providers").status_code == 200
    assert browser.get("/_oauth/session").status_code == 401


def test_the_link_and_the_scope(protected: SiteUnderTest, provider: LocalProvider) -> None:
    """A path that needs a provider asks for the link, then for the scope, and then it is there."""
    browser = protected.browser()
    provider.withheld_scope.add("player")
    asked = location(browser.get("/call/spotify/me", headers=PAGE))
    assert urlsplit(asked).path == "/_oauth/spotify/link"
    assert parse_qs(urlsplit(asked).query)["next"] == ["/call/spotify/me"]
    refused = browser.get("/call/spotify/me", headers=JSON)
    assert (refused.status_code, refused.json()["error"]) == (401, "link_required")
    protected.login(browser, "twitter")
    assert browser.get("/call/twitter/me", headers=JSON).status_code == 200
    asked = location(browser.get("/call/spotify/me", headers=PAGE))
    started = location(press(protected, browser, browser.get(asked, headers=PAGE), "/spotify/link"))
    back = location(browser.get(protected.authorize(started), headers=PAGE))
    assert back == f"{BASE}/call/spotify/me"
    missing = browser.get(back, headers=JSON)
    assert (missing.status_code, missing.json()["reason"]) == (401, "scope")
    assert missing.json()["scope"] == ["player"]
    provider.withheld_scope.clear()
    page = browser.get(location(browser.get(back, headers=PAGE)), headers=PAGE)
    started = location(press(protected, browser, page, "/spotify/link"))
    back = location(browser.get(protected.authorize(started), headers=PAGE))
    assert browser.get(back, headers=PAGE).json()["id"] == "1001"
    protected.post(browser, "/spotify/unlink")
    assert browser.get(back, headers=JSON).status_code == 401


def test_signed_out_and_forged(protected: SiteUnderTest) -> None:
    """A session that ended, a made-up one, and headers that name somebody open nothing (row 62)."""
    browser = protected.browser()
    protected.login(browser)
    cookie = {"cookie": f"oauthgate={browser.cookies['oauthgate']}"}
    assert protected.browser().get("/who", headers=cookie).status_code == 200
    protected.post(browser, "/logout")
    for headers in (
        cookie,
        {"cookie": f"oauthgate={'A' * 22}.{'B' * 43}"},
        {"authorization": f"Bearer {'A' * 22}.{'B' * 43}"},
        {"x-user": "1001", "x-oauthgate-user": "1001", "x-original-uri": "/", "x-original-url": "/"},
        {"x-http-method-override": "GET", "x-forwarded-prefix": "/who", "x-rewrite-url": "/"},
    ):
        assert protected.browser().get("/who", headers={**JSON, **headers}).status_code == 401


@pytest.mark.parametrize("root", ["/app", "/app/", "/a/b"])
def test_mounted(kind: Kind, config: dict[str, Any], root: str) -> None:
    """Patterns are below the path that the application is mounted at (row 74)."""
    mount = root.rstrip("/")
    config["access"] = {"protect": ["/admin/*"]}
    config["oauthgate"]["base_url"] = f"{BASE}{mount}"

    def probe(oauth: oauthgate.Visitor, services: Any) -> Any:
        return {"user_id": oauth.user_id}

    with probing(kind, config, probe) as browser:
        browser.get("/")
        if kind == "asgi":
            assert isinstance(browser, TestClient)
            browser._transport.root_path = root  # type: ignore[attr-defined]
            paths = {f"{mount}/admin/x": 401, f"{mount}/open": 200, "/admin/x": 401}
        else:
            browser._transport.script_name = root  # type: ignore[attr-defined]
            paths = {"/admin/x": 401, "/open": 200}
        for path, status in paths.items():
            assert browser.get(path, headers=JSON).status_code == status, path


def test_sockets(config: dict[str, Any]) -> None:
    """A handshake on a protected path is refused before the application sees it (row 112)."""
    config["access"] = {
        "protect": ["/live/*", {"path": "/music/*", "provider": "spotify"}],
    }
    seen: list[str] = []

    async def endpoint(socket: WebSocket) -> None:
        seen.append(socket.url.path)
        await socket.accept()
        await socket.send_json({"user_id": socket.state.oauth.user_id})
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/{path:path}", endpoint)])
    oauthgate.install(app, config)
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        for path in ("/live/1", "/LIVE/1", "/%2flive", "/x/..%2flive", "/music/1"):
            with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(path):
                pass
            assert refused.value.code == 4401, path
        with client.websocket_connect("/open") as socket:
            assert socket.receive_json() == {"user_id": None}
        started = client.get("/_oauth/twitter/login").headers["location"]
        assert client.get(SiteUnderTest.authorize(started)).status_code == 303
        cookie = {"cookie": f"oauthgate={client.cookies['oauthgate']}"}
        with client.websocket_connect("/live/1", headers=cookie) as socket:
            assert socket.receive_json()["user_id"] is not None
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            client.websocket_connect("/live/1", headers={**cookie, "origin": "https://evil.example"}),
        ):
            pass
        assert refused.value.code == 4401
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/music/1", headers=cookie),
        ):
            pass
    assert seen == ["/open", "/live/1"]


# -- what a proxy asks


def test_check_as_it_always_was(site: SiteUnderTest) -> None:
    """Without a header configured: 204 and who it is, or 401 and where to sign in."""
    browser = site.browser()
    refused = browser.get("/_oauth/check", headers={"x-original-uri": "/"})
    assert (refused.status_code, refused.content) == (401, b"")
    assert refused.headers["x-oauthgate-url"] == f"{BASE}/_oauth/?next=%2F"
    assert "x-oauthgate-user" not in refused.headers
    site.login(browser)
    passed = browser.get("/_oauth/check")
    assert (passed.status_code, passed.content) == (204, b"")
    assert passed.headers["x-oauthgate-user"] == browser.get("/who").json()["user_id"]
    assert "x-oauthgate-url" not in passed.headers


def test_check_with_the_original_uri(config: dict[str, Any], make_site: MakeSite) -> None:
    """The proxy's header decides by `protect`; one that is missing or odd is refused, and a doubled
    one, which WSGI cannot tell from one with a comma."""
    config["access"] = {
        "protect": ["/admin/*", {"path": "/music/*", "provider": "spotify"}],
        "original_uri_header": "X-Original-URI",
    }
    site = make_site()
    browser = site.browser()

    def ask(uri: str) -> Any:
        return browser.get("/_oauth/check", headers={"x-original-uri": uri})

    assert ask("/open?x=/admin").status_code == 204
    for uri in ("/admin", "/admin/x?y=1", "/%61dmin", "//admin", "/open/..%2fadmin", "/music/1"):
        assert ask(uri).status_code == 401, uri
    where = ask("/admin/x?y=1").headers["x-oauthgate-url"]
    assert where == f"{BASE}/_oauth/?next=%2Fadmin%2Fx%3Fy%3D1"
    assert ask("/music/1").headers["x-oauthgate-url"].startswith(f"{BASE}/_oauth/spotify/link?")
    assert "//evil" not in ask("/admin/..//evil.example/%0d%0aX:y").headers["x-oauthgate-url"]
    for headers in ([], [("x-original-uri", "/open")] * 2, [("x-original-uri", "http://x/open")]):
        if site.kind == "wsgi" and len(headers) == 2:
            continue
        assert browser.get("/_oauth/check", headers=headers).status_code == 400
    site.login(browser, "twitter")
    assert ask("/admin").status_code == 204
    assert ask("/admin").headers["x-oauthgate-user"]
    assert ask("/music/1").status_code == 401


def test_check_fails_closed(site: SiteUnderTest) -> None:
    """A store that cannot tell is a 503, which no proxy takes for a yes."""
    browser = site.browser()
    site.login(browser)

    async def broken(user_id: str) -> None:
        raise oauthgate.GateError("store_unavailable", "down")

    site.gate.vault.opened = broken  # type: ignore[method-assign] # a store that fails
    assert browser.get("/_oauth/check").status_code == 503
