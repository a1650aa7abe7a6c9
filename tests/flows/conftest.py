"""The clock that the scenario tests move, and one server for all their providers.

Starting and stopping a server takes longer than most of these tests, so one runs for all of them and
hands every request to the provider of the test that is running.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oauthgate.testing import LocalProvider, serve
from oauthgate.testing.server import Channel

from .steps import Clock


class Switch:
    """An ASGI app that is whichever provider was put into it last."""

    def __init__(self) -> None:
        self.url = ""
        self.current: LocalProvider | None = None

    async def __call__(self, scope: Channel, receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")  # uvicorn goes on without it
        assert self.current is not None
        await self.current(scope, receive, send)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Switch]:
    """The server that is every test's provider in turn."""
    switch = Switch()
    with serve(switch) as server:
        switch.url = server.url
        yield switch


@pytest.fixture
def provider_url(provider: LocalProvider, shared_server: Switch) -> Iterator[str]:
    """The address at which this test's provider answers."""
    provider.issuer = shared_server.url
    shared_server.current = provider
    yield shared_server.url
    shared_server.current = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The gate's time; the provider keeps its own."""
    return Clock(monkeypatch)
