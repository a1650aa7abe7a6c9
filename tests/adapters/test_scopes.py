"""What the ASGI gate does not answer passes through as it came: scopes, messages, lifespan."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from oauthgate import ASGIGate
from oauthgate.asgi import Message, Receive, Scope, Send
from tests.support import make_config

LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}


class Recorder:
    """An application that keeps what it was called with, receives `messages` and sends `answers`."""

    def __init__(self, messages: int = 0, answers: tuple[Message, ...] = ()) -> None:
        self.called: tuple[Scope, Receive, Send] | None = None
        self.received: list[Message] = []
        self._messages = messages
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called = (scope, receive, send)
        for _ in range(self._messages):
            self.received.append(await receive())
        for message in self._answers:
            await send(message)


def gate(app: Any, tmp_path: Path) -> ASGIGate:
    return ASGIGate(app, make_config("http://127.0.0.1:9", tmp_path))


async def no_message() -> Message:
    raise AssertionError("nothing is to be received")


async def no_send(message: Message) -> None:
    raise AssertionError("nothing is to be sent")


def test_unknown_scope_passes_through(tmp_path: Path) -> None:
    """A kind of scope from the future reaches the application: the very objects, unchanged (row 112)."""
    app = Recorder()
    scope: Scope = {"type": "carrier.pigeon", "path": "/_oauth/session", "headers": [(b"cookie", b"x")]}
    before = dict(scope)
    asyncio.run(gate(app, tmp_path)(scope, no_message, no_send))
    assert app.called is not None
    assert app.called[0] is scope
    assert app.called[1:] == (no_message, no_send)
    assert scope == before


def test_lifespan_passes_through(tmp_path: Path) -> None:
    """Startup and shutdown reach the application, its answers the server, its state the scope."""
    answers: tuple[Message, ...] = (
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    )
    app = Recorder(2, answers)
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {**LIFESPAN, "state": {}}
    asyncio.run(gate(app, tmp_path)(scope, receive, send))
    assert app.called is not None
    assert app.called[0] is scope
    assert scope["state"] == {}
    assert [message["type"] for message in app.received] == ["lifespan.startup", "lifespan.shutdown"]
    assert tuple(sent) == answers


def test_application_without_lifespan(tmp_path: Path) -> None:
    """One that does not know it raises, and the server hears of it, as the protocol says."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError(scope["type"])

    with pytest.raises(NotImplementedError):
        asyncio.run(gate(app, tmp_path)(dict(LIFESPAN), no_message, no_send))


def test_nothing_is_opened_for_a_scope(tmp_path: Path) -> None:
    """The lifespan of a gate that served nobody makes no database and no connection."""
    asyncio.run(gate(Recorder(), tmp_path)(dict(LIFESPAN), no_message, no_send))
    assert not (tmp_path / "gate.db").exists()


def test_http_scope_without_state(tmp_path: Path) -> None:
    """A server without lifespan state gives no `state`: the gate makes one for each request."""
    app = Recorder()
    wrapped = gate(app, tmp_path)
    states = []
    for _ in range(2):
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        asyncio.run(wrapped(scope, no_message, no_send))
        states.append(scope["state"])
    assert states[0] is not states[1]
    assert set(states[0]) == {"services", "oauth", "oauthgate"}
    assert app.called is not None
    assert app.called[1:] == (no_message, no_send)
