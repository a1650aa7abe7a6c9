"""The Redis store on one server: the contract, what is in Redis, what a request costs, set-ups."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT, make_store
from oauthgate.stores.redis import GRACE, RedisStore
from oauthgate.testing import StoreContract
from tests.servers.redis import RedisServer, redis_server
from tests.support import Kind, site_under_test

from .redis_places import SIDES, own, started, use


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with started(redis_server()) as found:
        yield found


@pytest.fixture
def url(server: RedisServer) -> str:
    return own(f"unix://{server.socket}")


class TestRedisStore(StoreContract):
    """One server, over its socket, under a prefix that is also a pattern."""

    @pytest.fixture(autouse=True)
    def _place(self, url: str) -> None:
        self.url = f"{url}[a-z]*?\\^"

    def make_store(self, blocking: bool) -> Any:
        store = make_store(self.url, blocking=blocking)
        assert isinstance(store, RedisStore)
        return store


@SIDES
def test_over_tcp(server: RedisServer, blocking: bool) -> None:
    """A host and a port; the number of a database keeps records apart."""
    first, second = (own(f"redis://127.0.0.1:{server.port}/{number}") for number in (0, 5))
    second = second.partition("=")[0] + "=" + first.partition("=")[2]

    async def scenario(store: RedisStore) -> None:
        await store.put("k", b"v", expect=ABSENT)

    use(first, blocking, scenario)
    use(second, blocking, scenario)


@SIDES
def test_a_read_is_one_get(server: RedisServer, url: str, blocking: bool) -> None:
    """One command for a read, one for a write, one for a delete, and none to purge."""

    async def scenario(store: RedisStore) -> None:
        await store.open()
        version = await store.put("k", b"v")
        await store.delete("k")
        version = await store.put("k", b"v")
        before = server.calls()
        for _ in range(10):
            await store.get("k")
        await store.purge(time.time())
        assert _more(server, before) == {"get": 10}
        before = server.calls()
        await store.put("k", b"w", expect=version)
        assert _more(server, before) == {"evalsha": 1, "getrange": 1, "set": 1}
        before = server.calls()
        await store.delete("k")
        assert _more(server, before) == {"evalsha": 1, "getrange": 1, "del": 1}

    use(url, blocking, scenario)


def _more(server: RedisServer, before: dict[str, int]) -> dict[str, int]:
    """What was called since, but for the connecting of the tests' own questions."""
    return {
        name: calls - before.get(name, 0)
        for name, calls in server.calls().items()
        if calls != before.get(name, 0)
    }


def test_a_signed_in_request_is_one_get(
    server: RedisServer, url: str, kind: Kind, config: dict[str, Any]
) -> None:
    """A whole request of somebody who is signed in costs one command."""
    config["oauthgate"] |= {"store": url, "secret": "s" * 32, "near_cache": 0}
    with site_under_test(kind, config) as site:
        browser = site.browser()
        site.login(browser)
        before = server.calls()
        for _ in range(5):
            assert browser.get("/who").json()["user_id"]
        assert _more(server, before) == {"get": 5}


@SIDES
def test_redis_frees_what_expired_but_not_before(server: RedisServer, url: str, blocking: bool) -> None:
    """A record with an expiry gets one in Redis, later by the grace and counted from now, so that the
    clocks of two machines may differ; a record without has none, also after it had one."""
    prefix = url.partition("=")[2]

    async def scenario(store: RedisStore) -> None:
        await store.put("k", b"v", expires_at=time.time() + 100)
        left = server.ask("PTTL", f"{prefix}k") / 1000
        assert 100 < left <= 100 + GRACE
        # Our clock a day ahead of Redis' own, or behind it.
        for ahead in (86_400, -86_400):
            store.clock = lambda ahead=ahead: time.time() + ahead  # type: ignore[misc]
            await store.put("k", b"v", expires_at=store.clock() + 100)
            assert await store.get("k") is not None
            left = server.ask("PTTL", f"{prefix}k") / 1000
            assert 100 < left <= 100 + GRACE
        await store.put("k", b"v")
        assert server.ask("PTTL", f"{prefix}k") == -1
        for expires_at in (1e300, math.inf):
            await store.put("k", b"v", expires_at=expires_at)
            record = await store.get("k")
            assert record is not None and record.expires_at == expires_at
        await store.put("k", b"v", expires_at=store.clock() - 10 * GRACE)
        assert await store.get("k") is None

    use(url, blocking, scenario)


@SIDES
def test_scripts_are_loaded_again(server: RedisServer, url: str, blocking: bool) -> None:
    """A server that forgot the scripts (a restart, SCRIPT FLUSH) is given them again, and once."""

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        server.ask("SCRIPT", "FLUSH")
        version = await store.put("k", b"w", expect=version)
        with pytest.raises(Conflict):
            await store.put("k", b"x", expect=ABSENT)
        server.ask("SCRIPT", "FLUSH")
        assert await store.delete("k", expect=version)

    use(url, blocking, scenario)


@SIDES
@pytest.mark.parametrize("command", [("SET", "plain"), ("SET", "2 1 never\n"), ("LPUSH", "x")])
def test_what_is_not_ours_is_not_touched(
    server: RedisServer, url: str, blocking: bool, command: tuple[str, str]
) -> None:
    """Other data under our keys are an error that names the prefix, and stay as they are."""
    key = url.partition("=")[2] + "k"
    server.ask(command[0], key, command[1])
    there = server.ask("DUMP", key)

    async def scenario(store: RedisStore) -> None:
        for work in (store.get("k"), store.put("k", b"v"), store.put("k", b"v", expect=ABSENT)):
            with pytest.raises(StoreError, match=r"choose another \?prefix="):
                await work
        with pytest.raises(StoreError, match=r"choose another \?prefix="):
            await store.delete("k")

    use(url, blocking, scenario)
    assert server.ask("DUMP", key) == there


@SIDES
def test_many_at_once_share_the_connections(server: RedisServer, url: str, blocking: bool) -> None:
    """A process waits for a free connection; it opens no more than it was told."""
    before = server.ask("INFO")["total_connections_received"]

    async def scenario(store: RedisStore) -> None:
        await store.put("k", b"v")
        if blocking:
            with _threads(40) as together:
                assert all(together(lambda _: step(store.get("k")), range(200)))
        else:
            assert all(await asyncio.gather(*(store.get("k") for _ in range(200))))

    use(f"{url}&connections=3", blocking, scenario)
    # The two questions of this test itself are connections too.
    assert server.ask("INFO")["total_connections_received"] - before <= 3 + 1


def _threads(number: int) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    class Together(ThreadPoolExecutor):
        def __call__(self, work: Any, items: Any) -> list[Any]:
            return list(self.map(work, items))

    return Together(number)


def test_two_loops_use_one_store(url: str) -> None:
    """Each event loop has connections of its own, which end with it."""
    store = make_store(url, blocking=False)
    asyncio.run(_put(store, b"one"))
    asyncio.run(_put(store, b"two"))
    assert not store._connections._by_loop  # type: ignore[attr-defined]


async def _put(store: Any, value: bytes) -> None:
    await store.put("k", value)
    record = await store.get("k")
    assert record is not None and record.value == value


@SIDES
def test_a_server_that_forgets_is_warned_of_once(
    server: RedisServer, url: str, blocking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a limit of memory and a policy that drops records, opening warns and names the cure."""
    server.ask("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "volatile-ttl")

    async def scenario(store: RedisStore) -> None:
        await store.open()
        await store.open()

    try:
        with caplog.at_level(logging.WARNING, "oauthgate.store"):
            use(url, blocking, scenario)
    finally:
        server.ask("CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")
    (record,) = caplog.records
    assert "set maxmemory-policy noeviction" in record.getMessage()


@SIDES
def test_a_user_with_the_documented_rights(server: RedisServer, url: str, blocking: bool) -> None:
    """The commands that docs/stores.md lists are enough; without INFO nothing but the look is lost."""
    rights = "+get +mget +getrange +set +del +pexpire +scan +eval +evalsha"
    prefix = url.partition("=")[2]
    server.ask("ACL", "SETUSER", "gate", "reset", "on", ">p/@:?#", f"~{prefix}*", *rights.split())
    place = f"unix://gate:p%2F%40%3A%3F%23@{server.socket}?prefix={prefix}"

    async def scenario(store: RedisStore) -> None:
        await store.open()
        version = await store.put("user/a", b"v", expires_at=time.time() + 9)
        assert [key async for key, _ in store.scan("user/")] == ["user/a"]
        assert await store.get("user/a")
        assert await store.delete("user/a", expect=version)

    use(place, blocking, scenario)
    server.ask("ACL", "SETUSER", "gate", "-get", "-set", "-scan")

    async def less(store: RedisStore) -> None:
        for work in (store.get("k"), store.put("k", b"v")):
            with pytest.raises(StoreError, match=r"grant \+get"):
                await work
        with pytest.raises(StoreError, match=r"grant \+get"):
            _ = [key async for key, _ in store.scan("")]

    use(place, blocking, less)

    async def wrong(store: RedisStore) -> None:
        with pytest.raises(StoreError, match="another user or password") as refused:
            await store.open()
        assert "wr0ng" not in str(refused.value)

    use(f"unix://gate:wr0ng@{server.socket}", blocking, wrong)
