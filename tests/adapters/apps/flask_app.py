"""Flask: handlers, a stream, and what this process is made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

import oauthgate

from . import config, marked, process, visitor

app = Flask(__name__)
oauthgate.install(app, config())


@app.get("/who")
def who() -> Any:
    return visitor(request.state.oauth, request.state.services)  # type: ignore[attr-defined]


@app.get("/call/<service>/<path:path>")
def call(service: str, path: str) -> Any:
    reply = request.state.services[service].get(path)  # type: ignore[attr-defined]
    return reply.json(), reply.status_code


@app.get("/process")
def this_process() -> Any:
    return process()


@app.get("/stream")
def stream() -> Response:
    """Two events; the second one comes, with a call to the service, when the test has seen the first."""
    spotify = request.state.services["spotify"]  # type: ignore[attr-defined]

    def events() -> Iterator[str]:
        yield "data: first\n\n"
        while not marked("go"):
            time.sleep(0.005)
        yield f"data: {spotify.get('me').json()['id']}\n\n"

    return Response(events(), mimetype="text/event-stream")
