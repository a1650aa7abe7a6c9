"""nginx in front of a program without a gate, by the very lines of docs/deployment.md."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from werkzeug.serving import make_server

import oauthgate
from oauthgate.testing import running, serve
from tests.servers import free_port
from tests.servers.nginx import nginx
from tests.stores.conftest import entered
from tests.support import PAGE, Kind, SiteUnderTest, make_config, make_provider

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.md"


class Front(NamedTuple):
    """nginx at `base`; `seen` are the requests that got through to the program behind it."""

    base: str
    seen: list[dict[str, str]]

    def browser(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.base, trust_env=False, timeout=20, headers=PAGE)


def locations(gate: str, program: str) -> str:
    """The lines of the manual, for a gate and a program at these addresses."""
    text = DEPLOYMENT.read_text(encoding="utf-8")
    (found,) = re.findall(r"```nginx\n(location [^`]*auth_request_set[^`]*)```", text)
    replaced = found.replace("http://127.0.0.1:8000", gate).replace("http://127.0.0.1:9000", program)
    return str(replaced)


@contextlib.contextmanager
def gate_at(kind: Kind, config: dict[str, Any]) -> Iterator[str]:
    """An empty application with a gate, on a port."""
    if kind == "asgi":
        app = Starlette()
        oauthgate.install(app, config)
        with serve(app) as server:
            yield server.url
        return
    flask = Flask("gate")
    oauthgate.install(flask, config)
    wsgi = make_server("127.0.0.1", 0, flask, threaded=True)
    thread = threading.Thread(target=wsgi.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{wsgi.server_port}"
    finally:
        wsgi.shutdown()
        thread.join()
        wsgi.server_close()
        flask.wsgi_app.close()  # type: ignore[attr-defined] # now the gate


@pytest.fixture
def front(kind: Kind, tmp_path: Path) -> Iterator[Front]:
    seen: list[dict[str, str]] = []

    async def show(request: Request) -> JSONResponse:
        seen.append({"path": request.url.path, **request.headers})
        return JSONResponse({"user": request.headers.get("x-oauthgate-user")})

    port = free_port()
    base = f"http://localhost:{port}"
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running(make_provider(base)))
        config = make_config(url, tmp_path, base)
        config["access"] = {
            "protect": ["/reports/*", {"path": "/music/*", "provider": "spotify"}],
            "original_uri_header": "X-Original-URI",
        }
        gate = stack.enter_context(gate_at(kind, config))
        program = Starlette(routes=[Route("/{rest:path}", show, methods=["GET", "POST"])])
        behind = stack.enter_context(serve(program)).url
        entered(stack, nginx(locations(gate, behind), port))
        yield Front(base, seen)


def test_the_whole_way(front: Front) -> None:
    """Refused, signed in, back on the page, linked for the next one, signed out, refused."""
    with front.browser() as browser:
        assert browser.get("/open").status_code == 200
        sent = browser.get("/reports/1?x=%2F")
        assert sent.status_code == 303
        assert (
            sent.headers["location"] == f"{front.base}/_oauth/?next={quote('/reports/1?x=%2F', safe='')}"
        )
        page = browser.get(sent.headers["location"])
        (login,) = re.findall(r'href="([^"]*/twitter/login[^"]*)"', page.text)
        started = browser.get(login.replace("&amp;", "&"))
        back = browser.get(SiteUnderTest.authorize(started.headers["location"]))
        assert back.headers["location"] == f"{front.base}/reports/1?x=%2F"
        user = browser.get(back.headers["location"]).json()["user"]
        session = browser.get("/_oauth/session").json()
        assert user == session["user_id"]
        asked = browser.get("/music/1")
        assert asked.headers["location"].startswith(
            f"{front.base}/_oauth/spotify/link?next=%2Fmusic%2F1"
        )
        headers = {"origin": front.base, "x-csrf-token": session["csrf_token"]}
        started = browser.post("/_oauth/spotify/link", data={"next": "/music/1"}, headers=headers)
        back = browser.get(SiteUnderTest.authorize(started.headers["location"]))
        assert browser.get(back.headers["location"]).json() == {"user": user}
        cookie = {"cookie": "; ".join(f"{each.name}={each.value}" for each in browser.cookies.jar)}
        assert browser.post("/_oauth/logout", headers=headers).status_code == 200
    with front.browser() as other:
        assert other.get("/reports/1", headers=cookie).status_code == 303
    assert [each["path"] for each in front.seen] == ["/open", "/reports/1", "/music/1"]


def test_no_way_around(front: Front) -> None:
    """However a path is spelt, nobody anonymous gets to the program by it."""
    host, _, port = front.base.removeprefix("http://").partition(":")
    for path in (
        "/reports", "/REPORTS/1", "//reports/1", "/open/../reports/1", "/open/%2e%2e/reports/1",
        "/%72eports/1", "/reports;x/1", "/open%2f..%2freports", "/%2572eports/1", "/./reports/1",
        "/reports%00", "/reports%0a", f"http://localhost:{port}/reports", "//evil/reports",
        "/reports%3fx", "/open/..;/reports",
    ):  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
            raw.sendall(head.encode())
            answer = b"".join(iter(functools.partial(raw.recv, 65536), b""))
        assert answer.split()[1] in (b"303", b"400"), (path, answer)
    assert front.seen == []


def test_what_clients_send_is_not_believed(front: Front) -> None:
    """A client's own headers neither open a page nor name a user (rows 62 and 70)."""
    spoofed = {
        "X-Original-URI": "/open",
        "X-Oauthgate-User": "somebody",
        "X_Oauthgate_User": "somebody",
        "X-Oauthgate-Url": "https://evil.example",
    }
    with front.browser() as browser:
        sent = browser.get("/reports/1", headers=spoofed)
        assert sent.status_code == 303
        assert sent.headers["location"].startswith(f"{front.base}/_oauth/")
        opened = browser.get("/open", headers=spoofed)
        assert opened.json() == {"user": None}
        assert browser.get("/ask-the-gate", headers=spoofed).status_code == 404
        started = browser.get("/_oauth/twitter/login", headers=spoofed)
        browser.get(SiteUnderTest.authorize(started.headers["location"]))
        seen = browser.get("/reports/1", headers=spoofed).json()["user"]
        assert seen == browser.get("/_oauth/session").json()["user_id"]
    assert all("somebody" not in "".join(each.values()) for each in front.seen)
