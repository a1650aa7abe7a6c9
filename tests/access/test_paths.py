"""`protect` and the application read one path alike: a protected handler is not reached (row 73).

Real routers decide what a path leads to, behind a gate that protects it; the paths are made by mangling
good ones in every way that some router, server or file system undoes.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import oauthgate
from oauthgate.access_paths import Protected, Requirement
from oauthgate.config import Config
from tests.support import make_config

PATHS = int(os.environ.get("OAUTHGATE_TEST_PATHS", "10000"))
GOOD = ["/admin", "/admin/", "/admin/users", "/admin/users/1", "/files/secret.txt", "/exact", "/open"]
PROTECT = ["/admin/*", "/files/*", "/exact"]


def protected(*patterns: str) -> Protected:
    found = Config.load({"access": {"protect": list(patterns)}}).access.protected
    assert found is not None
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/admin", "/admin/", "/admin/x", "//admin", "/admin//x", "/./admin", "/x/../admin", "/../admin",
        "/.//admin", "/admin/../open", "/ADMIN", "/Admin/x", "/admin;a=1", "/admin;a=1/x", ";/admin",
        "/;x=y/admin", "/%61dmin", "/%2561dmin", "/%252561dmin", "/x%2f..%2fadmin", "/x/%2e%2e/admin",
        "/x/..;/admin", "/x/.%2e/admin", "\\admin", "/x\\..\\admin", "/admin%00", "/admin\x00.html",
        "/admin?x", "/admin%3Fx", "/admin#x", "/admin%23", "/admin\n", "/admin%0a", "/admin ", "/admin.",
        "/admin.../x", "/／admin", "/ａｄｍｉｎ", "/ad\u200bmin", "/admin／x", "/ADMİN/../admin",
        "/" + "x/" * 500 + "../" * 500 + "admin", "/%25252525252561dmin", "admin",
        "http://evil.example/admin", "HTTPS://localhost:80/admin/x", "http:/admin", "//evil/admin",
        "///", "/",
    ],
)  # fmt: skip
def test_readings(path: str) -> None:
    """Every way to spell a protected path that anything undoes is protected; the last two are not it."""
    assert bool(protected("/admin/*").of(path)) == (path not in ("///", "/"))


@pytest.mark.parametrize(
    "path", ["/administrator", "/x/admin", "/open", "/open/admin", "/adm", "/user/1", "/ü", "/a%20b", ""]
)
def test_other_paths_stay_open(path: str) -> None:
    """What is not below a pattern is left alone."""
    assert protected("/admin/*").of(path) == []


def test_exact_and_everything() -> None:
    """Without `/*` one path is meant, with or without a slash at its end; `/*` is every path."""
    exact = protected("/exact")
    assert exact.of("/exact") and exact.of("/exact/") and exact.of("/x/../EXACT//")
    assert exact.of("/exact/below") == []
    root = protected("/")
    assert root.of("/") and root.of("") and root.of("//.") and not root.of("/x")
    every = protected("/*")
    assert all(every.of(path) for path in ("/", "", "/x", "/x/y", "*"))


def test_a_pattern_in_another_script() -> None:
    """Patterns are text as people read it, however a path spells that."""
    found = protected("/Größe/*", "/관리자")
    assert found.of("/größe/1") and found.of("/GRÖSSE") and found.of("/gro\u0308ße")
    assert found.of(quote("/größe")) and found.of("/관리자")


def test_long_paths_take_linear_time() -> None:
    """Doubling a hostile path about doubles the work: counted in decodings, which are bounded."""
    found = Protected([Requirement(("admin",), below=True)])
    for piece in ("%25", "%2525", "../", ";", "／", "%", "\\..", "a/", "a", "a.", "/:", "a:"):
        for end in ("", "!"):
            assert isinstance(found.of("/" + piece * (60_000 // len(piece)) + end), list)


# -- behind real routers

Ask = Callable[[str], tuple[int, bool]]


def starlette_site(config: dict[str, Any], folder: Path) -> tuple[Ask, Ask]:
    """What status a raw path gets, and whether a protected handler ran: with the gate, and without."""
    ran: list[str] = []

    async def secret(request: Request) -> PlainTextResponse:
        ran.append(request.url.path)
        return PlainTextResponse("secret")

    async def open_page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    class Files(StaticFiles):
        async def get_response(self, path: str, scope: Any) -> Any:
            answer = await super().get_response(path, scope)
            ran.append(path)  # it raises for a file that is not there
            return answer

    app = Starlette(
        routes=[
            Route("/admin", secret),
            Route("/exact", secret),
            Mount("/admin", routes=[Route("/", secret), Route("/{rest:path}", secret)]),
            Mount("/files", app=Files(directory=folder)),
            Route("/{rest:path}", open_page),
        ]
    )
    gate = oauthgate.ASGIGate(app, config)

    def through(entry: Any) -> Ask:
        def ask(raw: str) -> tuple[int, bool]:
            ran.clear()
            status = [0]

            async def receive() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    status[0] = message["status"]

            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": unquote(raw),
                "raw_path": raw.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": [(b"host", b"localhost")],
                "client": ("127.0.0.1", 1),
                "server": ("localhost", 80),
            }
            loop.run_until_complete(entry(scope, receive, send))
            return status[0], bool(ran)

        return ask

    loop = asyncio.new_event_loop()
    asks = through(gate), through(app)
    asks[0].__dict__["close"] = loop.close
    return asks


def flask_site(config: dict[str, Any], folder: Path) -> tuple[Ask, Ask]:
    """The same for Flask, which merges slashes and turns a path without its slash away."""
    from flask import send_from_directory

    app = Flask("under_test")
    ran: list[str] = []

    @app.route("/admin")
    @app.route("/exact")
    @app.route("/admin/")
    @app.route("/admin/<path:rest>")
    def secret(rest: str = "") -> str:
        ran.append(rest)
        return "secret"

    @app.route("/files/<path:name>")
    def files(name: str) -> Any:
        answer = send_from_directory(folder, name)
        answer.close()
        ran.append(name)
        return "file"

    @app.route("/<path:rest>")
    @app.route("/")
    def open_page(rest: str = "") -> str:
        return "open"

    gate = oauthgate.WSGIGate(app, config)

    def through(entry: Any) -> Ask:
        def ask(raw: str) -> tuple[int, bool]:
            ran.clear()
            status = [0]

            def start_response(line: str, headers: Any, exc_info: Any = None) -> Any:
                status[0] = int(line[:3])

            environ = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
                "QUERY_STRING": "",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "HTTP_HOST": "localhost",
                "wsgi.url_scheme": "http",
                "wsgi.version": (1, 0),
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": None,
            }
            body = entry(environ, start_response)
            b"".join(body)
            getattr(body, "close", lambda: None)()
            return status[0], bool(ran)

        return ask

    asks = through(gate), through(app)
    asks[0].__dict__["close"] = gate.close
    return asks


def mangled(chance: random.Random) -> str:
    """A raw path: a good one with some of what routers and servers undo done to it."""
    path = chance.choice(GOOD)
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(path) + 1)
        what = chance.randrange(9)
        if what == 0:
            path = (
                path[:at]
                + chance.choice(["/", "//", "/./", "/x/../", "/../", "\\", ";a=1", "."])
                + path[at:]
            )
        elif what == 1 and at < len(path):
            path = (
                path[:at]
                + quote(path[at], safe="").replace(path[at], f"%{ord(path[at]):02x}")
                + path[at + 1 :]
            )
        elif what == 2:
            path = path.replace("%", "%25", 1)
        elif what == 3:
            path = path[:at] + path[at:].swapcase()
        elif what == 4:
            path += chance.choice(
                ["/", "%00", "%0a", "%20", "%3f", "%23", ";", "..", "/.", "/..", "%2f", "."]
            )
        elif what == 5:
            path = path.replace("/", chance.choice(["%2f", "//", "/.//", "%5c", "/;/"]), 1)
        elif what == 6:
            path = (
                chance.choice(["//evil.example", "/open/..", "/open;/..", "/%2e", "/x%2f..", ""]) + path
            )
        elif what == 7:
            path = (
                path[:at]
                + chance.choice(["%e2%80%8b", "%ef%bc%8f", "%c0%af", "%ff", "%0d", "%09"])
                + path[at:]
            )
    return path if path.startswith("/") else "/" + path


@pytest.mark.parametrize("make", [starlette_site, flask_site])
def test_no_way_around(make: Callable[..., tuple[Ask, Ask]], tmp_path: Path) -> None:
    """No anonymous request reaches a protected handler, whatever its path; many of the same reach it
    without a gate, so the paths are ones that routers do understand."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret")
    config = make_config("http://127.0.0.1:9", tmp_path)
    config["access"] = {"protect": PROTECT}
    gated, bare = make(config, folder)
    chance = random.Random(73)
    reached = 0
    for _ in range(PATHS):
        path = mangled(chance)
        status, ran = gated(path)
        assert not ran, path
        assert status < 500, path
        if status != 401:
            # Whatever was let through leads nowhere protected without the gate either.
            assert not bare(path)[1], path
        else:
            reached += bare(path)[1]
    gated.__dict__["close"]()
    assert reached > PATHS / 10
