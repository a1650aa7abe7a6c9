"""A handler that needs a service which is not linked: the visitor is led there and back by itself.

Each case runs in Flask, Starlette and FastAPI, and in a raw callable of either kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import fastapi
import httpx2
import pytest
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.middleware.lint import LintMiddleware

import oauthgate
from oauthgate.testing import LocalProvider
from tests.support import BASE, PAGE, SiteUnderTest

from .steps import Clock, forms, links, location, pep_3333

FRAMEWORKS = ["starlette", "fastapi", "flask", "raw_asgi", "raw_wsgi"]
PATH = "/now/caf%C3%A9%20%26?track=1&q=a%2Fb%26c&q=%E2%9C%93"
FETCHES: dict[str, dict[str, str]] = {
    "fetch": {"accept": "*/*", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    "fetch_of_html": {"accept": "text/html", "sec-fetch-mode": "same-origin"},
    "xhr": {
        "accept": "application/json, text/javascript, */*; q=0.01",
        "x-requested-with": "XMLHttpRequest",
    },
    "curl": {"accept": "*/*", "user-agent": "curl/8.5.0"},
    "no_accept": {"accept": ""},
    "image": {"accept": "image/avif,image/webp,*/*", "sec-fetch-mode": "no-cors"},
}


async def _starlette(request: Request) -> Response:
    reply = await request.state.services["spotify"].get("me")
    return PlainTextResponse(f"{request.url.path}?{request.url.query} {reply.json()['id']}")


def _asgi(framework: str, config: dict[str, Any]) -> Any:
    app: Any
    if framework == "starlette":
        app = Starlette(routes=[Route("/{path:path}", _starlette, methods=["GET", "POST"])])
        oauthgate.install(app, config)
    elif framework == "fastapi":
        app = fastapi.FastAPI()
        oauthgate.install(app, config)

        async def page(path: str, request: fastapi.Request) -> Response:
            return await _starlette(request)

        app.add_api_route("/{path:path}", page, methods=["GET", "POST"], response_model=None)
    else:

        async def raw(
            scope: dict[str, Any],
            receive: Callable[[], Awaitable[Any]],
            send: Callable[[Any], Awaitable[None]],
        ) -> None:
            if scope["type"] != "lifespan":
                await (await _starlette(Request(scope, receive)))(scope, receive, send)
                return
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

        app = oauthgate.ASGIGate(raw, config)  # type: ignore[arg-type]
    return app


def _wsgi(framework: str, config: dict[str, Any]) -> Any:
    if framework == "flask":
        app = Flask("not_linked")

        @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
        @app.route("/<path:path>", methods=["GET", "POST"])
        def page(path: str) -> str:
            reply = flask_request.state.services["spotify"].get("me")  # type: ignore[attr-defined]
            return f"{flask_request.path}?{flask_request.query_string.decode()} {reply.json()['id']}"

        oauthgate.install(app, config)
        return app

    def raw(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reply = environ["oauthgate.services"]["spotify"].get("me")
        path = environ["PATH_INFO"].encode("latin-1").decode()
        body = f"{path}?{environ['QUERY_STRING']} {reply.json()['id']}".encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return oauthgate.WSGIGate(raw, config)


@pytest.fixture(params=FRAMEWORKS)
def browser(request: pytest.FixtureRequest, config: dict[str, Any]) -> Iterator[httpx2.Client]:
    """A browser at an app of each framework, whose every page needs spotify."""
    with contextlib.ExitStack() as stack:
        if request.param in ("flask", "raw_wsgi"):
            wsgi = _wsgi(request.param, config)
            stack.callback(getattr(wsgi, "wsgi_app", wsgi).close)
            transport = httpx2.WSGITransport(app=LintMiddleware(pep_3333(wsgi)))
            yield stack.enter_context(httpx2.Client(transport=transport, base_url=BASE))
        else:
            app = _asgi(request.param, config)
            yield stack.enter_context(TestClient(app, base_url=BASE, follow_redirects=False))


def sign_in(browser: httpx2.Client, provider: str = "twitter") -> None:
    started = browser.get(f"/_oauth/{provider}/login", headers=PAGE)
    assert browser.get(SiteUnderTest.authorize(location(started))).status_code == 303


def through_the_link_page(browser: httpx2.Client, url: str) -> httpx2.Response:
    """What a person does on the link page: press its one button, and say yes at the provider."""
    page = browser.get(url, headers=PAGE)
    assert page.status_code == 200
    found = forms(page)
    if found:
        headers = {**PAGE, "origin": BASE, "sec-fetch-site": "same-origin"}
        answer = browser.post(found[0].action, data=found[0].fields, headers=headers)
    else:
        (button,) = [href for href in links(page) if "/spotify/login" in href]
        answer = browser.get(button, headers=PAGE)
    return browser.get(SiteUnderTest.authorize(location(answer)), headers=PAGE)


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed_in", "anonymous"])
def test_a_navigation_comes_back_to_its_page(browser: httpx2.Client, signed_in: bool) -> None:
    """A browser is sent to the link page, and from there back to the very page with its query."""
    if signed_in:
        sign_in(browser)
    asked = browser.get(PATH, headers=PAGE)
    assert location(asked).startswith(f"{BASE}/_oauth/spotify/link?")
    assert asked.headers["cache-control"] == "no-store"
    back = through_the_link_page(browser, location(asked))
    # As the page was asked for, or percent-encoded where a path may be either.
    assert location(back) in (f"{BASE}{PATH}", f"{BASE}{PATH.replace('%26?', '&?')}")
    page = browser.get(location(back), headers=PAGE)
    assert page.text == "/now/café &?track=1&q=a%2Fb%26c&q=%E2%9C%93 1001"


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed_in", "anonymous"])
def test_programs_get_json(browser: httpx2.Client, signed_in: bool) -> None:
    """Anything but a navigation gets a 401 whose url leads a person through to the page."""
    if signed_in:
        sign_in(browser)
    for kind, headers in FETCHES.items():
        answer = browser.get("/now?x=1", headers=headers)
        assert answer.status_code == 401, kind
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert (body["error"], body["provider"]) == ("link_required", "spotify")
    assert location(through_the_link_page(browser, body["url"])) == f"{BASE}/now?x=1"


def test_a_post_comes_back_to_the_page_it_was_sent_from(browser: httpx2.Client) -> None:
    """A form that cannot be handled leads back to its own page, and is never repeated by itself."""
    sign_in(browser)
    headers = {**PAGE, "origin": BASE, "referer": f"{BASE}/form?step=2"}
    asked = browser.post("/tweet", data={"text": "hello"}, headers=headers)
    assert location(through_the_link_page(browser, location(asked))) == f"{BASE}/form?step=2"


@pytest.mark.parametrize(
    "referrer", [None, "https://evil.example/", f"{BASE}.evil.example/x", f"{BASE}//evil/"]
)
def test_a_post_from_elsewhere_comes_back_home(browser: httpx2.Client, referrer: str | None) -> None:
    """A referrer of another site, or none, makes the home page the target (row 1)."""
    headers = {**PAGE, **({"referer": referrer} if referrer else {})}
    asked = browser.post("/tweet", data={"text": "hello"}, headers=headers)
    assert location(through_the_link_page(browser, location(asked))) == f"{BASE}/"


def test_an_ended_grant_says_so(browser: httpx2.Client, provider: LocalProvider, clock: Clock) -> None:
    """When the grant was withdrawn, the link page says that it must be renewed, and renewing helps."""
    sign_in(browser, "spotify")
    assert browser.get("/now", headers=PAGE).status_code == 200
    provider.revoke_all()
    clock.advance(3600)
    program = browser.get("/now", headers=FETCHES["fetch"])
    assert (program.status_code, program.json()["reason"]) == (401, "reauth_required")
    asked = browser.get("/now", headers=PAGE)
    assert "reason=reauth_required" in location(asked)
    page = browser.get(location(asked), headers=PAGE)
    assert "ended" in page.text or "again" in page.text
    clock.advance(-3600)
    back = through_the_link_page(browser, location(asked))
    assert location(back) == f"{BASE}/now"
    assert browser.get("/now", headers=PAGE).text.endswith("1001")
    assert provider.count["token"] == 3, "login, one refused refresh, link"
