"""A gate under ASGI asks PostgreSQL for all users in use at once: a request reads nothing meanwhile, and
what others do is obeyed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oauthgate.stores.postgres import PostgresStore
from tests.flows.steps import counting, who
from tests.servers.postgres import PgBouncer, Postgres
from tests.servers.redis import until
from tests.support import Kind

from .near_places import (
    Machines,
    listening,
    obeyed,
    reads,
    settled,
    signed_in,
    two_machines,
    visitor,
)

#: What the server's log has for a question for many, and for a read of one.
MANY, ONE = "SELECT key, version FROM", "SELECT value, version, expires_at FROM"


@pytest.fixture
def machines(provider_url: str, tmp_path: Path) -> Iterator[Machines]:
    with two_machines(provider_url, tmp_path, near_cache="30s") as make:
        yield make


@pytest.fixture
def url(pg: Postgres, schema: str) -> str:
    return pg.url(f"schema={schema}")


def asked(pg: Postgres, schema: str, statement: str) -> int:
    """How often a statement was sent for the table of this test."""
    return pg.said().count(f'{statement} "{schema}"')


def test_a_steady_visitor_costs_nothing(
    pg: Postgres, schema: str, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read and no statement for a request, however long ago the last one was. Somebody else's change
    costs no read of those it does not concern."""
    here, there = machines(url, "wsgi")
    ada, grace = signed_in(here), signed_in(here, "grace")
    mine, hers = visitor(here, ada), visitor(here, grace)
    store = listening(here, mine, monkeypatch)
    settled(store, hers)
    before = asked(pg, schema, ONE)
    assert reads(store, mine, 100) == 0
    assert asked(pg, schema, ONE) == before
    there.link(visitor(there, grace), "spotify", "grace")
    until(lambda: reads(store, hers, 1) > 0, "the news of a change")
    settled(store, hers)
    assert reads(store, mine) == 0


@pytest.mark.parametrize("what", ["logout", "unlink", "deletion", "emptying"])
def test_another_machine_is_obeyed(
    pg: Postgres,
    schema: str,
    url: str,
    kind: Kind,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """What is done elsewhere, by a gate or past it, is obeyed long before `near_cache` is over."""
    here, there = machines(url, kind, near_cache="60s")
    browser = signed_in(there)
    there.link(browser, "spotify")
    second = visitor(here, browser)
    listening(here, second, monkeypatch)
    if what == "logout":
        assert there.post(browser, "/logout").status_code == 200
    elif what == "unlink":
        assert there.post(browser, "/spotify/unlink").status_code == 303
        until(lambda: who(second)["services"] == ["twitter"], "the end of a link", seconds=15)
        return
    elif what == "deletion":
        pg.admin(f"DELETE FROM {schema}.oauthgate WHERE key LIKE 'user/%'")
    else:
        pg.admin(f"TRUNCATE {schema}.oauthgate")
    obeyed(second)


def test_through_a_pooler(
    pg: Postgres,
    bouncer: PgBouncer,
    schema: str,
    url: str,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs nothing that PgBouncer in transaction mode does not have."""
    here, there = machines(bouncer.url(f"schema={schema}"), "wsgi", other=url)
    browser = signed_in(there)
    second = visitor(here, browser)
    listening(here, second, monkeypatch)
    there.post(browser, "/logout")
    obeyed(second)


def test_connections_that_end(
    pg: Postgres, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server ends all connections and something changes, it is obeyed, and so are others."""
    here, there = machines(url, "wsgi")
    ada, grace = signed_in(there), signed_in(there, "grace")
    mine, hers = visitor(here, ada), visitor(here, grace)
    store = listening(here, mine, monkeypatch)
    settled(store, hers)
    for pid in pg.connections():
        pg.admin(f"SELECT pg_terminate_backend({pid})")
    there.post(ada, "/logout")
    obeyed(mine)
    settled(store, hers)
    there.post(grace, "/logout")
    obeyed(hers)


def test_a_server_that_was_away(
    pg: Postgres, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it cannot be asked nothing is believed for longer than `near_cache`; then all goes on."""
    here, there = machines(url, "wsgi", near_cache="1s")
    browser = signed_in(there)
    second = visitor(here, browser)
    store = listening(here, second, monkeypatch)
    pg.stop()
    try:
        until(lambda: second.get("/who").status_code == 503, "the end of what was believed")
    finally:
        pg.start()
    settled(store, second)
    there.post(browser, "/logout")
    obeyed(second)


@pytest.mark.parametrize("settings", [{"near_cache": 0}, {}], ids=["switched off", "wsgi"])
def test_nobody_asks_without_a_use(
    pg: Postgres, schema: str, url: str, machines: Machines, settings: dict[str, Any]
) -> None:
    """With `near_cache = 0` nothing is believed; under WSGI it is by time: neither asks for many."""
    there, here = machines(url, "wsgi", **settings)
    site = there if settings else here
    second = visitor(site, signed_in(site))
    assert who(second)["user_id"]
    assert reads(counting(site.gate), second) == (20 if settings else 0)
    assert asked(pg, schema, MANY) == 0


@pytest.mark.parametrize("how", ["closed", "abandoned"])
def test_nothing_is_left_behind(pg: Postgres, schema: str, how: str) -> None:
    """A loop that ends, with the store closed or not, leaves no task and no connection; the next loop
    asks anew."""
    name = f"near-{schema}"

    async def main() -> None:
        store = PostgresStore(pg.url(f"schema={schema}&application_name={name}"))
        store.watch(30.0)
        before = asyncio.all_tasks()
        await store.put("user/1", b"v")
        for _ in range(2 if how == "closed" else 1):
            while store.stamp("user/1") is None:
                await asyncio.sleep(0.01)
            assert pg.connections(name)
            if how == "closed":
                await store.close()
                assert asyncio.all_tasks() == before
                until(lambda: not pg.connections(name), "the end of its connections")

    for _ in range(2):
        asyncio.run(asyncio.wait_for(main(), 20))
        until(lambda: not pg.connections(name), "the end of its connections")


def test_versions_of_many(pg: Postgres, url: str) -> None:
    """What is there, and has not expired; keys of every kind."""

    async def main() -> None:
        store = PostgresStore(url)
        keys = ["user/1", "user/{},\"'\\", "user/\u00e4\u2603", "user/" + 300 * "x"]
        versions = {key: await store.put(key, b"v") for key in keys}
        await store.put("user/over", b"v", expires_at=store.clock() - 1)
        assert await store._versions([*keys, "user/2", "user/over"]) == versions
        assert await store._versions([]) == {}
        many = [f"user/{number}" for number in range(3000)]
        assert await store._versions(many) == {"user/1": versions["user/1"]}
        await store.close()

    asyncio.run(main())


def test_a_store_that_nobody_closes(pg: Postgres, schema: str) -> None:
    """Asking ends with it, also while its loop goes on."""
    name = f"near-{schema}"

    async def main() -> None:
        before = asyncio.all_tasks()
        store = PostgresStore(pg.url(f"schema={schema}&application_name={name}"))
        store.watch(30.0)
        await store.put("user/1", b"v")
        while store.stamp("user/1") is None:
            await asyncio.sleep(0.01)
        del store
        gc.collect()
        while asyncio.all_tasks() != before or pg.connections(name):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20))
