"""Litestar, wrapped from the outside, with the handler that answers what is not linked."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, Response, get

import oauthgate

from . import config, visitor

ANSWERED = (oauthgate.NotLinked, oauthgate.GateError, oauthgate.RefreshFailed)


@get("/who")
async def who(request: Request[Any, Any, Any]) -> dict[str, Any]:
    state = request.scope["state"]
    return visitor(state["oauth"], state["services"])


@get("/call/{service:str}/{path:path}")
async def call(request: Request[Any, Any, Any], service: str, path: str) -> Response[Any]:
    reply = await request.scope["state"]["services"][service].get(path.lstrip("/"))
    return Response(reply.json(), status_code=reply.status_code)


@get("/sync/{service:str}/{path:path}", sync_to_thread=True)
def sync(request: Request[Any, Any, Any], service: str, path: str) -> Response[Any]:
    reply = request.scope["state"]["services"].sync[service].get(path.lstrip("/"))
    return Response(reply.json(), status_code=reply.status_code)


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar would answer 500 before the gate around it can see what happened."""
    assert isinstance(error, ANSWERED)
    found = request.scope["state"]["oauthgate"].answer(request.scope, error)
    headers = dict(found.headers)
    kind = headers.pop("Content-Type", None)
    return Response(found.body, status_code=found.status, headers=headers, media_type=kind)


litestar = Litestar([who, call, sync], exception_handlers=dict.fromkeys(ANSWERED, answer))
app = oauthgate.ASGIGate(litestar, config())  # type: ignore[arg-type] # its scope is a TypedDict
