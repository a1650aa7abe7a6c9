"""A bare ASGI callable. It knows no lifespan and lets `NotLinked` go."""

from __future__ import annotations

import json
from typing import Any

from oauthgate import ASGIGate
from oauthgate.asgi import Receive, Scope, Send

from . import config, process, visitor


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HTTP; refuse whatever else comes, as the specification tells an application to."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    status, answer = await answer_for(scope)
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_for(scope: Scope) -> tuple[int, Any]:
    services, oauth = scope["state"]["services"], scope["state"]["oauth"]
    match scope["path"].strip("/").split("/"):
        case [*_, "who"]:
            return 200, visitor(oauth, services)
        case [*_, "process"]:
            return 200, process()
        case [*_, "call", service, path]:
            reply = await services[service].get(path)
            return reply.status_code, reply.json()
    return 404, {"error": "not_found"}


app = ASGIGate(application, config())
