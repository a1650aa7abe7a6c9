"""One refresh for everybody, on each engine: several processes in each mode, and killed holders.

`tests/refresh` has the same for SQLite, and for longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from oauthgate.testing import LocalProvider
from tests.refresh.fleet import fleet, kill_holders, linked_user
from tests.servers.dynamodb import DynamoDB, dynamodb
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer, redis_server

from . import dynamodb_places, redis_places
from .conftest import entered

PROCESSES, CALLERS = 4, 20
#: For a release these are raised; every commit runs them a few times.
ROUNDS = int(os.environ.get("OAUTHGATE_REFRESH_ROUNDS", "4"))
KILLS = int(os.environ.get("OAUTHGATE_REFRESH_KILLS", "6"))
MODES = ["asyncio", "threads", "gevent"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with ExitStack() as stack:
        yield entered(stack, redis_server())


@pytest.fixture(scope="module")
def tables() -> Iterator[DynamoDB]:
    with ExitStack() as stack:
        yield entered(stack, dynamodb())


@pytest.fixture(params=["redis", "postgres", "dynamodb"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store. There are fewer connections in a process than callers."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return redis_places.own(f"redis://127.0.0.1:{server.port}?connections=5")
    if request.param == "postgres":
        pg: Postgres = request.getfixturevalue("pg")
        return pg.url(f"schema={request.getfixturevalue('schema')}&connections=5")
    dynamodb_places.credentials(monkeypatch)
    found: DynamoDB = request.getfixturevalue("tables")
    return dynamodb_places.own(found.endpoint, "&connections=5")


@pytest.fixture
def user_id(place: str, config: dict[str, Any]) -> str:
    """A user with a Spotify link, in that store."""
    config["oauthgate"] |= {"store": place, "secret": "s" * 32}
    return linked_user(config)


@pytest.mark.parametrize("mode", MODES)
def test_eighty_callers_one_refresh(
    mode: str, config: dict[str, Any], user_id: str, provider: LocalProvider, tmp_path: Path
) -> None:
    """20 callers in each of 4 processes: exactly one refresh request and 80 successes, every time
    (row 94)."""
    with fleet(mode, config, user_id, tmp_path, processes=PROCESSES, callers=CALLERS) as workers:
        for _ in range(ROUNDS):
            provider.expire_access_tokens()
            before = provider.count["token"]
            results = workers.round()
            assert [result["ok"] for result in results] == [CALLERS] * PROCESSES, results
            assert provider.count["token"] == before + 1


def test_killed_holders_lose_no_link(
    config: dict[str, Any], user_id: str, provider: LocalProvider, tmp_path: Path
) -> None:
    """`kill -9` of the refreshing process, at a provider that grants 30 s of reuse (rows 94, 107)."""
    kill_holders(config, user_id, provider, tmp_path, rounds=KILLS)
