"""Bare WSGI callables: a function, a generator, and the corners of PEP 3333.

All of them let `NotLinked` go: the function when it is called, the generator when it is first asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from oauthgate import WSGIGate
from oauthgate.wsgi import Environ, StartResponse

from . import config, mark, process, visitor

JSON = [("Content-Type", "application/json")]


class Closing:
    """An iterable that says when the server has closed it (PEP 3333, `close`)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __iter__(self) -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    def close(self) -> None:
        mark(self.name)


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """An ordinary function."""
    match environ["PATH_INFO"]:
        case "/write":
            # The imperative way, kept for old programs: the answer is written, and nothing returned.
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"written ")
            write(b"by hand")
            return []
        case "/closing":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Closing("closed-iterable")
    status, answer = answer_for(environ)
    start_response(status, JSON)
    return [json.dumps(answer).encode()]


def generator(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """A generator: none of its code has run when it is returned."""
    try:
        if environ["PATH_INFO"] == "/begun":
            # Announced, but nothing sent yet: the answer may still be taken back.
            start_response("200 OK", JSON)
            username = environ["oauthgate.services"]["spotify"].profile.username
            yield json.dumps(username).encode()
            return
        status, answer = answer_for(environ)
        start_response(status, JSON)
        yield b""
        yield json.dumps(answer).encode()
    finally:
        mark("closed-generator")


def answer_for(environ: Environ) -> tuple[str, Any]:
    services, oauth = environ["oauthgate.services"], environ["oauthgate.user"]
    match environ["PATH_INFO"].strip("/").split("/"):
        case [*_, "who"]:
            return "200 OK", visitor(oauth, services)
        case [*_, "process"]:
            return "200 OK", process()
        case [*_, "call", service, path]:
            reply = services[service].get(path)
            return f"{reply.status_code} Answer", reply.json()
    return "404 Not Found", {"error": "not_found"}


function_app = WSGIGate(application, config())
generator_app = WSGIGate(generator, config())
