"""Quart, its `asgi_app` wrapped in place, with the handler that answers what is not linked."""

from __future__ import annotations

from typing import Any

from quart import Quart, Response, request

import oauthgate

from . import config, visitor

app = Quart(__name__)
wrapped: Any = app.asgi_app  # its scope is a TypedDict
app.asgi_app = oauthgate.ASGIGate(wrapped, config())  # type: ignore[method-assign,assignment] # as Quart says


@app.get("/who")
async def who() -> Any:
    state = request.scope["state"]
    return visitor(state["oauth"], state["services"])


@app.get("/call/<service>/<path:path>")
async def call(service: str, path: str) -> Any:
    reply = await request.scope["state"]["services"][service].get(path)
    return reply.json(), reply.status_code


@app.get("/sync/<service>/<path:path>")
def sync(service: str, path: str) -> Any:
    reply = request.scope["state"]["services"].sync[service].get(path)
    return reply.json(), reply.status_code


@app.errorhandler(oauthgate.NotLinked)
@app.errorhandler(oauthgate.GateError)
@app.errorhandler(oauthgate.RefreshFailed)
async def answer(error: Exception) -> Response:
    """Quart would answer 500 before the gate around it can see what happened."""
    scope: Any = request.scope
    found = scope["state"]["oauthgate"].answer(scope, error)
    return Response(found.body, found.status, dict(found.headers))
