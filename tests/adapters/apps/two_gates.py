"""Two gates in one process, each with its own configuration, side by side below `/one` and `/two`."""

from __future__ import annotations

from collections.abc import Iterable

from oauthgate import ASGIGate, WSGIGate
from oauthgate.asgi import Receive, Scope, Send
from oauthgate.wsgi import Environ, StartResponse

from . import config, raw_asgi, raw_wsgi

SECOND = "OAUTHGATE_TEST_SECOND_CONFIG"

asgi_one, asgi_two = (
    ASGIGate(raw_asgi.application, config()),
    ASGIGate(raw_asgi.application, config(SECOND)),
)
wsgi_one, wsgi_two = (
    WSGIGate(raw_wsgi.application, config()),
    WSGIGate(raw_wsgi.application, config(SECOND)),
)


def _second(path: str) -> bool:
    return path.startswith(("/two/", "/_two/"))


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    gate = asgi_two if scope["type"] == "http" and _second(scope["path"]) else asgi_one
    await gate(scope, receive, send)


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    gate = wsgi_two if _second(environ["PATH_INFO"]) else wsgi_one
    return gate(environ, start_response)
