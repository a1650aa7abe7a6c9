"""What the gate costs a request of the application: `make bench`.

A Starlette and a Flask app with one small page, called in process without a server, each bare and with
the gate: for an anonymous visitor, and for one who is signed in with three links (SQLite). The times are
this machine's, the best of several rounds; what to compare is the difference.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.support import KINDS, Kind, make_config, make_provider, site_under_test

import oauthgate
from oauthgate.testing import running

CALLS, ROUNDS = 2000, 7


def starlette_app() -> Starlette:
    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/page", page)])


def flask_app() -> Flask:
    app = Flask("bench")

    @app.get("/page")
    def page() -> str:
        return "hello"

    return app


def asgi_microseconds(app: Any, cookie: str) -> float:
    headers = [(b"host", b"localhost")]
    if cookie:
        headers.append((b"cookie", cookie.encode()))
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.add(message["status"])

    async def call() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/page",
            "raw_path": b"/page",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        await app(scope, receive, send)

    async def rounds() -> float:
        return min([await _round(call) for _ in range(ROUNDS)])

    async def _round(call: Callable[[], Awaitable[None]]) -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            await call()
        return time.perf_counter() - started

    best = asyncio.run(rounds())
    assert statuses == {200}
    return best / CALLS * 1e6


def wsgi_microseconds(app: Any, cookie: str) -> float:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/page",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        **({"HTTP_COOKIE": cookie} if cookie else {}),
    }
    statuses: set[str] = set()

    def start_response(status: str, headers: object, error: object = None) -> None:
        statuses.add(status)

    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            b"".join(app(dict(environ), start_response))
        best = min(best, time.perf_counter() - started)
    assert statuses == {"200 OK"}
    return best / CALLS * 1e6


def session_cookie(kind: Kind, config: dict[str, Any]) -> str:
    """Sign in and link two more accounts; the session's cookie."""
    with site_under_test(kind, config) as site:
        browser = site.browser()
        site.login(browser, "twitter")
        for name in ("spotify", "corp"):
            site.link(browser, name)
        return f"oauthgate={browser.cookies['oauthgate']}"


def main() -> None:
    print("microseconds per request     bare     anonymous     signed in")
    with running(make_provider()) as url, tempfile.TemporaryDirectory() as folder:
        config = make_config(url, Path(folder))
        config["oauthgate"]["secret"] = "s" * 32
        for kind in KINDS:
            cookie = session_cookie(kind, config)
            make = starlette_app if kind == "asgi" else flask_app
            measure = asgi_microseconds if kind == "asgi" else wsgi_microseconds
            gated: Any = make()
            oauthgate.install(gated, config)
            bare = measure(make(), "")
            anonymous, signed_in = measure(gated, ""), measure(gated, cookie)
            title = "Starlette (ASGI)" if kind == "asgi" else "Flask (WSGI)"
            more = [f"{gate:8.0f} (+{gate - bare:3.0f})" for gate in (anonymous, signed_in)]
            print(f"{title:24}{bare:9.0f}{more[0]}{more[1]}")
            if kind == "wsgi":
                gated.wsgi_app.close()


if __name__ == "__main__":
    main()
