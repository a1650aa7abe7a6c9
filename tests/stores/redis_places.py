"""What the tests of the Redis store share: servers started once for a file, and a store for one test."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from oauthgate.stepping import run as step
from oauthgate.stores import Store, make_store

from .conftest import entered

T = TypeVar("T")
S = TypeVar("S")

SIDES = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "async"])
#: Seconds in which a server of these tests must have answered, when a test waits for it not to.
SHORT = 0.5


@contextlib.contextmanager
def started(server: contextlib.AbstractContextManager[S]) -> Iterator[S]:
    """A running server, or the reason why there is none (see `entered`)."""
    with contextlib.ExitStack() as stack:
        yield entered(stack, server)


def own(url: str) -> str:
    """`url` with a prefix that nobody else has: records of one test."""
    return f"{url}{'&' if '?' in url else '?'}prefix={secrets.token_hex(6)}:"


def use(url: str, blocking: bool, scenario: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario with a store, which is closed after."""

    async def whole() -> T:
        store: Store = make_store(url, blocking=blocking)
        try:
            return await scenario(store)
        finally:
            await store.close()

    return step(whole()) if blocking else asyncio.run(whole())
