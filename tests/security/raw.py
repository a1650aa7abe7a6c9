"""Requests byte for byte, as a server would hand them to an application.

An HTTP client repairs and refuses what an attacker sends by hand: here nothing stands between. `Raw`
builds the ASGI scope as uvicorn does and the WSGI environ as gunicorn does, calls the gate's own
adapter, and gives back what it wrote.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from tests.support import SiteUnderTest

Headers = Sequence[tuple[bytes, bytes]]
#: Every header that an answer of the gate may have; anything else was injected.
KNOWN_HEADERS = {
    "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin", "access-control-max-age", "allow", "cache-control",
    "content-language",
    "content-length", "content-security-policy", "content-type", "cross-origin-resource-policy",
    "location",
    "referrer-policy", "retry-after", "set-cookie", "vary", "x-content-type-options", "x-frame-options",
    "x-oauthgate-url", "x-oauthgate-user",
}  # fmt: skip


@dataclass(frozen=True)
class RawAnswer:
    """A status, the headers in order (names in lower case), and the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def location(self) -> str:
        (found,) = self.values("location")
        return found

    @property
    def text(self) -> str:
        return self.body.decode()

    def check(self) -> None:
        """What holds for each answer of the gate: no 500, no injected header, no control character."""
        assert self.status != 500, self.body
        for name, value in self.headers:
            assert name in KNOWN_HEADERS, name
            assert value.isascii() and value.isprintable(), (name, value)


class Raw:
    """Sends requests to one site, in process."""

    def __init__(self, site: SiteUnderTest) -> None:
        self.site = site
        self._browser = site.browser()

    def __call__(
        self,
        target: bytes,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        root: str = "",
        scheme: str = "http",
    ) -> RawAnswer:
        """`target` is path and query as on the wire; a Host of the site is added when none is given."""
        every = list(headers)
        if not any(name.lower() == b"host" for name, _ in every):
            every.insert(0, (b"host", b"localhost"))
        if body or method == "POST":
            every.append((b"content-length", str(len(body)).encode()))
        if self.site.kind == "asgi":
            scope = asgi_scope(target, method, every, root, scheme)
            portal: Any = self._browser.portal  # type: ignore[attr-defined]
            answer: RawAnswer = portal.call(call_asgi, self.site.asgi, scope, body)
            return answer
        return call_wsgi(self.site.wsgi, wsgi_environ(target, method, every, body, root, scheme))


def asgi_scope(
    target: bytes, method: str = "GET", headers: Headers = (), root: str = "", scheme: str = "http"
) -> dict[str, Any]:
    """The scope that uvicorn makes of a request line; `root` is the path that a mount puts in front."""
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": root + unquote(path.decode("latin-1")),
        "raw_path": root.encode() + path,
        "root_path": root,
        "query_string": query,
        "headers": [(name.lower(), value) for name, value in headers],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


async def call_asgi(app: Callable[..., Any], scope: dict[str, Any], body: bytes = b"") -> RawAnswer:
    """What an ASGI application answers."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    return RawAnswer(
        start["status"],
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


def wsgi_environ(
    target: bytes,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    root: str = "",
    scheme: str = "http",
) -> dict[str, Any]:
    """The environ that gunicorn makes of a request line (PEP 3333: bytes disguised as Latin-1)."""
    path, _, query = target.partition(b"?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": target.decode("latin-1"),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        if name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[name] = value
            continue
        key = f"HTTP_{name}"
        joint = "; " if name == "COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    return environ


def call_wsgi(app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> RawAnswer:
    """What a WSGI application answers."""
    began: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        began.append((status, headers))

    result = app(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        close = getattr(result, "close", None)
        if close:
            close()
    status, headers = began[-1]
    return RawAnswer(
        int(status.partition(" ")[0]), [(name.lower(), value) for name, value in headers], body
    )


def run_asgi(app: Callable[..., Any], scope: dict[str, Any]) -> RawAnswer:
    """The same with an event loop of its own."""
    return asyncio.run(call_asgi(app, scope))
