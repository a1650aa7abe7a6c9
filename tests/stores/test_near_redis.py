"""Redis tells a gate under ASGI what others changed: nothing is read meanwhile, and they are obeyed."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oauthgate.stores.redis import RedisStore
from tests.flows.steps import counting, who
from tests.servers.redis import (
    SERVICE,
    RedisServer,
    redis_cluster,
    redis_sentinel,
    redis_server,
    until,
)
from tests.support import Kind

from .near_places import (
    Machines,
    listening,
    muffler,
    obeyed,
    reads,
    restless,
    settled,
    signed_in,
    two_machines,
    visitor,
)
from .redis_places import own, started

#: What the connection begins with on which changes are told, and no other.
SIGN = b"HELLO"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with started(redis_server({"appendonly": "yes"})) as found:
        yield found


@pytest.fixture
def url(server: RedisServer) -> str:
    return own(f"redis://127.0.0.1:{server.port}")


@pytest.fixture
def machines(provider_url: str, tmp_path: Path) -> Iterator[Machines]:
    with two_machines(provider_url, tmp_path, near_cache="30s") as make:
        yield make


def listeners(server: RedisServer) -> list[str]:
    """The ids of the connections on which the server tells of changes, by their flags."""
    lines = server.ask("CLIENT", "LIST").decode().splitlines()
    clients = (dict(part.partition("=")[::2] for part in line.split()) for line in lines)
    return [each["id"] for each in clients if "t" in each["flags"]]


def test_a_steady_visitor_costs_nothing(
    server: RedisServer, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read and no command for a request, however long ago the last one was; one connection tells of
    changes. Somebody else's change costs no read of those it does not concern."""
    here, there = machines(url, "wsgi")
    ada, grace = signed_in(here), signed_in(here, "grace")
    mine, hers = visitor(here, ada), visitor(here, grace)
    store = listening(here, mine, monkeypatch)
    settled(store, hers)
    before = server.calls()
    assert reads(store, mine, 100) == 0
    assert server.calls().get("get") == before.get("get")
    assert len(listeners(server)) == 1
    there.link(visitor(there, grace), "spotify", "grace")
    until(lambda: reads(store, hers, 1) > 0, "the news of a change")
    assert reads(store, mine) == 0


@pytest.mark.parametrize("what", ["logout", "unlink", "deletion", "flushing"])
def test_another_machine_is_obeyed(
    server: RedisServer,
    url: str,
    kind: Kind,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """What is done elsewhere is obeyed as soon as it is told, long before `near_cache` is over."""
    here, there = machines(url, kind, near_cache="60s")
    browser = signed_in(there)
    there.link(browser, "spotify")
    second = visitor(here, browser)
    user_id = who(second)["user_id"]
    listening(here, second, monkeypatch)
    if what == "logout":
        assert there.post(browser, "/logout").status_code == 200
    elif what == "unlink":
        assert there.post(browser, "/spotify/unlink").status_code == 303
        until(lambda: who(second)["services"] == ["twitter"], "the end of a link", seconds=15)
        return
    elif what == "deletion":
        prefix = url.partition("=")[2]
        assert server.ask("DEL", f"{prefix}user/{user_id}") == 1
    else:
        server.ask("FLUSHALL")
    obeyed(second)


def test_a_connection_that_ends_is_replaced(
    server: RedisServer, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes while nobody listens is obeyed, and later changes are heard of again."""
    here, there = machines(url, "wsgi")
    ada, grace = signed_in(there), signed_in(there, "grace")
    mine, hers = visitor(here, ada), visitor(here, grace)
    store = listening(here, mine, monkeypatch)
    settled(store, hers)
    (listener,) = listeners(server)
    assert server.ask("CLIENT", "KILL", "ID", listener) == 1
    there.post(ada, "/logout")
    obeyed(mine)
    settled(store, hers)
    assert len(listeners(server)) == 1 and listeners(server) != [listener]
    there.post(grace, "/logout")
    obeyed(hers)


def test_a_restart(
    server: RedisServer, url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same when the whole server was away."""
    here, there = machines(url, "wsgi")
    ada = signed_in(there)
    mine = visitor(here, ada)
    store = listening(here, mine, monkeypatch)
    server.stop()
    server.start()
    settled(store, mine)
    there.post(ada, "/logout")
    obeyed(mine)


@pytest.mark.parametrize("timeout", [0.5, 60], ids=["noticed", "unnoticed"])
def test_silence_is_not_believed(
    server: RedisServer,
    url: str,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
) -> None:
    """A connection that is there and says nothing any more: the others are obeyed all the same, by way
    of reads, long before the silence is taken for an end; then there is a new connection."""
    with muffler(server.port, SIGN) as proxy:
        options = f"&timeout={timeout:g}&connect_timeout=0.5"
        far = url.replace(str(server.port), str(proxy.port)) + options
        here, there = machines(far, "wsgi", other=url, near_cache="1s")
        browser, grace = signed_in(there), signed_in(there, "grace")
        second, hers = visitor(here, browser), visitor(here, grace)
        store = listening(here, second, monkeypatch)
        proxy.muffled.set()
        there.post(browser, "/logout")
        obeyed(second)
        assert reads(store, hers, 5) == 5, "nothing is believed"
        if timeout == 60:
            assert proxy.listeners == 1
            return
        until(lambda: proxy.listeners > 1, "a new attempt to listen")
        proxy.muffled.clear()
        settled(store, hers)


def test_a_proxy_that_tells_nothing(
    server: RedisServer,
    url: str,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A subscription that was taken proves nothing: here another server took it. So all users in use are
    asked for together instead."""
    caplog.set_level(logging.INFO, "oauthgate.store")
    with started(redis_server()) as another, muffler(server.port, SIGN) as proxy:
        proxy.elsewhere = another.port
        here, there = machines(url.replace(str(server.port), str(proxy.port)), "wsgi", other=url)
        browser = signed_in(there)
        second = visitor(here, browser)
        restless(monkeypatch)
        store = counting(here.gate)
        assert who(second)["user_id"]
        until(lambda: "does not tell of a change" in caplog.text, "the reason in the log")
        settled(store, second)
        there.post(browser, "/logout")
        obeyed(second)


def test_a_user_who_may_not_listen(
    server: RedisServer,
    url: str,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without the right to CLIENT TRACKING all users in use are asked for together, and others are
    obeyed; one line of the log says why."""
    caplog.set_level(logging.INFO, "oauthgate.store")
    prefix = url.partition("=")[2]
    rights = "+get +mget +getrange +set +del +pexpire +scan +eval +evalsha +info"
    server.ask("ACL", "SETUSER", "mute", "reset", "on", ">p", f"~{prefix}*", *rights.split())
    here, there = machines(url.replace("redis://", "redis://mute:p@"), "wsgi", other=url)
    browser, grace = signed_in(there), signed_in(there, "grace")
    second, hers = visitor(here, browser), visitor(here, grace)
    store = listening(here, second, monkeypatch)
    settled(store, hers)
    (said,) = (each.getMessage() for each in caplog.records if "near_cache" in each.getMessage())
    assert "+client|tracking" in said
    before = server.calls()["get"]
    assert reads(store, second, 100) == 0
    assert server.calls()["get"] == before
    assert listeners(server) == []
    there.post(grace, "/logout")
    obeyed(hers)
    assert reads(store, second) == 0, "somebody else's change costs nothing"
    server.ask("ACL", "SETUSER", "mute", "+client|tracking")
    again = visitor(machines(url.replace("redis://", "redis://mute:p@"), "wsgi")[0], browser)
    until(
        lambda: bool(who(again)["user_id"] and listeners(server)), "the right that docs/stores.md names"
    )


def test_a_server_that_tells_again(
    url: str, server: RedisServer, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused is tried again after some minutes, and then it is told."""
    monkeypatch.setattr("oauthgate.stores.redis_watch.UNOFFERED_PAUSE", 0.5)
    prefix = url.partition("=")[2]
    server.ask("ACL", "SETUSER", "mute", "reset", "on", ">p", f"~{prefix}*", "+@all", "-client|tracking")
    here, there = machines(url.replace("redis://", "redis://mute:p@"), "wsgi", other=url)
    browser = signed_in(there)
    second = visitor(here, browser)
    store = listening(here, second, monkeypatch)
    assert listeners(server) == []
    server.ask("ACL", "SETUSER", "mute", "+client|tracking")
    until(lambda: len(listeners(server)) == 1, "the subscription")
    settled(store, second)
    there.post(browser, "/logout")
    obeyed(second)


@pytest.mark.parametrize("settings", [{"near_cache": 0}, {}], ids=["switched off", "wsgi"])
def test_nobody_listens_without_a_use(
    server: RedisServer, url: str, machines: Machines, settings: dict[str, Any]
) -> None:
    """With `near_cache = 0` nothing is believed; under WSGI reads ask: both open no connection."""
    there, here = machines(url, "wsgi", **settings)
    site = there if settings else here
    before = server.calls().get("client|tracking", 0), len(listeners(server))
    second = visitor(site, signed_in(site))
    assert who(second)["user_id"]
    store = counting(site.gate)
    assert reads(store, second) == (20 if settings else 0)
    assert (server.calls().get("client|tracking", 0), len(listeners(server))) == before


def test_a_failover(provider_url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another server has become the primary, it is the one that is listened to. The old one goes
    on as a replica, and its word is not believed."""
    with started(redis_sentinel()) as (old, new, sentinel):
        url = own(f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")
        here, there = machines(url, "wsgi")
        ada, grace = signed_in(there), signed_in(there, "grace")
        mine, hers = visitor(here, ada), visitor(here, grace)
        store = listening(here, mine, monkeypatch)
        assert len(listeners(old)) == 1
        until(lambda: old.ask("DBSIZE") == new.ask("DBSIZE"), "the records on the replica")
        until(lambda: bool(sentinel.ask("SENTINEL", "FAILOVER", SERVICE)), "the failover")
        until(lambda: new.ask("ROLE")[0] == b"master", "its promotion")
        until(lambda: old.ask("ROLE")[0] == b"slave", "the demotion")
        until(lambda: len(listeners(new)) == 1, "a listener there")
        settled(store, hers)
        there.post(ada, "/logout")
        obeyed(mine)
        assert listeners(old) == []


def test_a_demoted_server_is_left(url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody ends the connections to a primary that became a replica, the gate does."""
    with started(redis_server()) as primary, started(redis_server()) as server:
        url = url.replace(url.split(":")[2].partition("?")[0], str(server.port))
        here, _ = machines(url, "wsgi", near_cache="1s")
        second = visitor(here, signed_in(here))
        listening(here, second, monkeypatch)
        (listener,) = listeners(server)
        server.ask("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: listener not in listeners(server), "the end of that connection")


def test_a_cluster_is_asked(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its servers are not listened to, but asked for all users in use at once."""
    with started(redis_cluster()) as servers:
        here, there = machines(own(f"redis+cluster://127.0.0.1:{servers[0].port}"), "wsgi")
        ada, grace = signed_in(there), signed_in(there, "grace")
        mine, hers = visitor(here, ada), visitor(here, grace)
        store = listening(here, mine, monkeypatch)
        settled(store, hers)
        before = [server.calls().get("get") for server in servers]
        assert reads(store, mine, 100) == 0
        assert [server.calls().get("get") for server in servers] == before
        there.post(ada, "/logout")
        obeyed(mine)
        assert reads(store, hers) == 0
        assert not any(listeners(server) for server in servers)


def test_versions_of_many_in_a_cluster() -> None:
    """What is there, and has not expired, wherever it is."""

    async def main(url: str) -> None:
        store = RedisStore(url)
        versions = {f"user/{number}": await store.put(f"user/{number}", b"v") for number in range(50)}
        await store.put("user/over", b"v", expires_at=store.clock() - 1)
        assert await store._versions([*versions, "user/none", "user/over"]) == versions
        await store.close()

    with started(redis_cluster()) as servers:
        asyncio.run(main(own(f"redis+cluster://127.0.0.1:{servers[0].port}")))


@pytest.mark.parametrize("by", ["tcp", "socket"])
@pytest.mark.parametrize("how", ["closed", "abandoned"])
def test_nothing_is_left_behind(server: RedisServer, url: str, how: str, by: str) -> None:
    """A loop that ends, with the store closed or not, leaves no task and no connection; the next loop
    listens anew."""
    place = url if by == "tcp" else own(f"unix://{server.socket}?db=2")

    async def main() -> None:
        store = RedisStore(place)
        store.watch(30.0)
        before = asyncio.all_tasks()
        for _ in range(2 if how == "closed" else 1):
            while store.stamp("user/1") is None:
                await asyncio.sleep(0.01)
            assert len(listeners(server)) == 1
            if how == "closed":
                await store.close()
                assert asyncio.all_tasks() == before
                until(lambda: not listeners(server), "the end of its connection")

    for _ in range(2):
        asyncio.run(asyncio.wait_for(main(), 20))
        until(lambda: not listeners(server), "the end of its connection")


def test_a_loop_for_one_request_does_not_listen(server: RedisServer, url: str) -> None:
    """Where every request has a loop of its own, none of them opens a second connection."""

    async def main(store: RedisStore) -> None:
        assert store.stamp("user/1") is None
        await store.get("user/1")
        await store.close()

    store = RedisStore(url)
    store.watch(30.0)
    before = server.calls().get("hello", 0)
    for _ in range(5):
        asyncio.run(main(store))
    assert server.calls().get("hello", 0) == before


def test_a_store_that_nobody_closes(server: RedisServer, url: str) -> None:
    """Listening ends with it, also while its loop goes on."""

    async def main() -> None:
        before = asyncio.all_tasks()
        store = RedisStore(url)
        store.watch(30.0)
        while store.stamp("user/1") is None:
            await asyncio.sleep(0.01)
        del store
        gc.collect()
        while asyncio.all_tasks() != before or listeners(server):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20))
