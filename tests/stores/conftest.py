"""Servers for the stores that need one: each is started once for all tests of a process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

from tests.servers import Missing
from tests.servers.postgres import PgBouncer, Postgres, pgbouncer, postgres

T = TypeVar("T")


def entered(stack: ExitStack, server: AbstractContextManager[T]) -> T:
    """A running server; skips where it is not installed, which with `OAUTHGATE_TEST_ALL=1` fails."""
    try:
        return stack.enter_context(server)
    except Missing as missing:
        if os.environ.get("OAUTHGATE_TEST_ALL") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def pg() -> Iterator[Postgres]:
    """A PostgreSQL cluster; a test that stops or freezes it starts it again."""
    with ExitStack() as stack:
        yield entered(stack, postgres())


@pytest.fixture(scope="session")
def bouncer(pg: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of it, with three server connections."""
    with ExitStack() as stack:
        yield entered(stack, pgbouncer(pg))


@pytest.fixture
def schema() -> str:
    """A schema that no other test uses."""
    return f"s{secrets.token_hex(6)}"
