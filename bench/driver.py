"""Requests to an application in process, without a server: one over ASGI, one over WSGI.

The headers are what a browser sends. Every batch checks that each answer was the one that is meant to
be measured: an error page is often the fastest of all.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from .measure import Batch

BROWSER = [
    ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en;q=0.9"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
]


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""

    def header(self, name: str) -> str:
        """The first header of that name, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def cookies(self) -> dict[str, str]:
        """The cookies that the answer sets."""
        pairs = [
            value.partition(";")[0].partition("=")
            for key, value in self.headers
            if key.lower() == "set-cookie"
        ]
        return {name: value for name, _, value in pairs}


class AsgiDriver:
    """An ASGI application under requests, on an event loop of its own."""

    def __init__(self, app: Any, stack: ExitStack) -> None:
        self.app = app
        self.runner = stack.enter_context(asyncio.Runner())
        stack.callback(self._close)
        self._gate: Any = None

    def _close(self) -> None:
        if self._gate is not None:
            self.runner.run(self._gate.close())

    @staticmethod
    def scope(path: str, cookie: str, query: str = "", scheme: str = "http") -> dict[str, Any]:
        headers = [(b"host", b"localhost")]
        headers += [(name.encode(), value.encode()) for name, value in BROWSER]
        if cookie:
            headers.append((b"cookie", cookie.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }

    async def ask(self, path: str, cookie: str = "", query: str = "") -> Answer:
        """One request; its answer."""
        answer = Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in message.get("headers", [])
                ]
            else:
                answer.body += message.get("body", b"")

        scope = self.scope(path, cookie, query)
        await self.app(scope, receive, send)
        self._gate = scope.get("state", {}).get("oauthgate", self._gate)
        return answer

    def get(self, path: str, cookie: str = "", query: str = "") -> Answer:
        return self.runner.run(self.ask(path, cookie, query))

    def batch(self, cookies: Sequence[str], path: str = "/page") -> Batch:
        """A batch of requests, the cookies by turns."""
        turns: Iterator[str] = itertools.cycle(cookies)
        prepared = {cookie: self.scope(path, cookie) for cookie in cookies}
        statuses: set[int] = set()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.add(message["status"])

        async def many(count: int) -> None:
            for _ in range(count):
                scope = dict(prepared[next(turns)])
                scope["headers"] = list(scope["headers"])
                await self.app(scope, receive, send)

        def batch(count: int) -> None:
            self.runner.run(many(count))
            assert statuses == {200}, statuses

        return batch


class WsgiDriver:
    """A WSGI application under requests."""

    def __init__(self, app: Any, stack: ExitStack) -> None:
        self.app = app
        gate = getattr(app, "wsgi_app", app)
        if type(gate).__name__ == "WSGIGate":
            stack.callback(gate.close)

    @staticmethod
    def environ(path: str, cookie: str, query: str = "") -> dict[str, Any]:
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in BROWSER}
        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            **headers,
            **({"HTTP_COOKIE": cookie} if cookie else {}),
        }

    def get(self, path: str, cookie: str = "", query: str = "") -> Answer:
        answer = Answer()

        def start_response(status: str, headers: list[tuple[str, str]], error: object = None) -> None:
            answer.status = int(status[:3])
            answer.headers = headers

        result = self.app(self.environ(path, cookie, query), start_response)
        try:
            answer.body = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        return answer

    def batch(self, cookies: Sequence[str], path: str = "/page") -> Batch:
        """A batch of requests, the cookies by turns."""
        turns: Iterator[str] = itertools.cycle(cookies)
        prepared = {cookie: self.environ(path, cookie) for cookie in cookies}
        statuses: set[str] = set()

        def start_response(status: str, headers: object, error: object = None) -> None:
            statuses.add(status)

        def batch(count: int) -> None:
            for _ in range(count):
                result = self.app(dict(prepared[next(turns)]), start_response)
                b"".join(result)
                if hasattr(result, "close"):
                    result.close()
            assert statuses == {"200 OK"}, statuses

        return batch
