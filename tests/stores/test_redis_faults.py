"""Redis that is gone, silent, full, demoted or cut off: an error, never a wrong answer, and recovery."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT, ANY, Write, make_store
from oauthgate.stores.redis import RedisStore
from tests.servers.redis import SERVICE, RedisServer, redis_server, until

from .cutter import Cutter, to_redis
from .outcomes import fails
from .redis_places import SHORT, SIDES, own, started, use


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that keeps what it has answered, as docs/stores.md asks for."""
    with started(redis_server({"appendonly": "yes"})) as found:
        yield found


@pytest.fixture
def url(server: RedisServer) -> Iterator[str]:
    yield own(f"redis://127.0.0.1:{server.port}")
    try:
        server.thaw()
        server.ask("REPLICAOF", "NO", "ONE")
        server.ask("CONFIG", "SET", "maxmemory", 0, "min-replicas-to-write", 0, "maxclients", 500)
    except Exception:  # it is gone, or takes nobody any more
        server.stop()
        server.start()


@SIDES
def test_a_server_that_is_gone_and_comes_back(server: RedisServer, url: str, blocking: bool) -> None:
    """Connections that a restart has broken are replaced without a restart of ours, and what was
    written before is there."""

    async def scenario(store: RedisStore) -> None:
        await store.open()
        version = await store.put("k", b"v")
        server.stop()
        await fails(store, "cannot be reached, or broke off")
        with pytest.raises(StoreError, match="cannot be reached"):
            await make_store(url, blocking=blocking).open()
        server.start()
        assert await store.get("k") == (b"v", version, None)
        await store.put("k", b"w", expect=version)

    use(url, blocking, scenario)


@SIDES
def test_a_restart_between_two_commands(server: RedisServer, url: str, blocking: bool) -> None:
    """A restart that nobody was there for is not noticed: not by reads, and not by any write."""

    async def restart() -> None:
        server.stop()
        server.start()
        if not blocking:
            await asyncio.sleep(0.05)  # while the server was away, the event loop went on

    async def scenario(store: RedisStore) -> None:
        for _ in range(2):
            version = await store.put("k", b"v")
            await restart()
            assert await store.delete("k", expect=version)
            await restart()
            assert await store.get("k") is None
            await restart()

    use(url, blocking, scenario)


@SIDES
def test_a_server_that_is_silent(server: RedisServer, url: str, blocking: bool) -> None:
    """A server that hangs is an error after the timeout; what it answers later goes to nobody."""

    async def scenario(store: RedisStore) -> None:
        await store.put("a", b"a")
        await store.put("b", b"b")
        server.freeze()
        with pytest.raises(StoreError, match="gave no answer in time"):
            await store.get("a")
        with pytest.raises(StoreError, match="gave no answer in time"):
            await store.put("late", b"v", expect=ABSENT)
        server.thaw()
        for _ in range(10):
            record = await store.get("b")
            assert record is not None and record.value == b"b"

    use(f"{url}&timeout={SHORT}", blocking, scenario)


def test_a_cancelled_read_leaves_no_answer_behind(server: RedisServer, url: str) -> None:
    """A task that was cancelled while it waited: its answer is not the next one's."""

    async def scenario(store: RedisStore) -> None:
        await store.put("a", b"a")
        await store.put("b", b"b")
        server.freeze()
        waiting = asyncio.ensure_future(store.get("a"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        server.thaw()
        await _ten_times_b(store)

    use(url, False, scenario)


class _Interrupt(BaseException):
    """What gevent, or a server that ends a worker, throws into code that waits."""


@pytest.mark.parametrize("behind_a_sentinel", [False, True], ids=["plain", "sentinel"])
def test_an_interrupted_read_leaves_no_answer_behind(
    server: RedisServer, url: str, behind_a_sentinel: bool
) -> None:
    """The same for a thread that is interrupted, also where redis-py asks a sentinel."""
    options = {"sentinel monitor": f"{SERVICE} 127.0.0.1 {server.port} 1"}
    with contextlib.ExitStack() as stack:
        if behind_a_sentinel:
            sentinel = stack.enter_context(redis_server(options, sentinel=True))
            url = own(f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")

        async def scenario(store: RedisStore) -> None:
            await store.put("a", b"a")
            await store.put("b", b"b")
            server.freeze()
            before = signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                with pytest.raises(_Interrupt):
                    await store.get("a")
            finally:
                signal.signal(signal.SIGALRM, before)
            # The answer is sent only now, and may arrive after the next command was.
            thawing = threading.Timer(0.05, server.thaw)
            thawing.start()
            await _ten_times_b(store)
            thawing.join()

        use(url, True, scenario)


def _interrupt(*_: object) -> None:
    raise _Interrupt


async def _ten_times_b(store: RedisStore) -> None:
    for _ in range(10):
        record = await store.get("b")
        assert record is not None and record.value == b"b"


@pytest.fixture
def cutter(server: RedisServer) -> Iterator[Cutter]:
    with contextlib.closing(Cutter(server.port, to_redis)) as found:
        yield found


@SIDES
@pytest.mark.parametrize("moment", ["requests", "answers"])
def test_a_write_that_is_cut_off_is_done_once(
    server: RedisServer, cutter: Cutter, blocking: bool, moment: str
) -> None:
    """A conditional write whose connection breaks, before or after the server did it, succeeds: once,
    and not as a conflict with itself."""

    async def scenario(store: RedisStore) -> None:
        await store.put("warm", b"up")
        before = server.calls().get("set", 0)
        setattr(cutter, moment, 1)
        version = await store.put("k", b"one", expect=ABSENT)
        assert await store.get("k") == (b"one", version, None)
        setattr(cutter, moment, 1)
        newer = await store.put("k", b"two", expect=version)
        assert await store.get("k") == (b"two", newer, None)
        assert server.calls()["set"] == before + 2
        for expect in (version, ABSENT):
            setattr(cutter, moment, 1)
            with pytest.raises(Conflict):
                await store.put("k", b"three", expect=expect)
        assert getattr(cutter, moment) == 0

    use(own(f"redis://127.0.0.1:{cutter.port}"), blocking, scenario)


@SIDES
def test_what_cannot_know_itself_is_not_sent_twice(
    server: RedisServer, cutter: Cutter, blocking: bool
) -> None:
    """A write without expectation, and a delete, are sent once: a second time they could undo what
    somebody else did in between. It is an error, as nobody knows whether it was done."""

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        before = server.calls()["evalsha"]
        for work in (store.put("k", b"v"), store.delete("k", expect=version), store.delete("k")):
            cutter.answers = 1
            with pytest.raises(StoreError, match="broke off") as raised:
                await work
            assert not isinstance(raised.value, Conflict)
        assert server.calls()["evalsha"] == before + 3

    use(own(f"redis://127.0.0.1:{cutter.port}"), blocking, scenario)


@SIDES
def test_a_read_is_sent_twice_at_most(cutter: Cutter, blocking: bool) -> None:
    """A broken connection is tried once more for a read, and then it is an error."""

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        cutter.answers = 1
        assert await store.get("k") == (b"v", version, None)
        cutter.answers = 2
        with pytest.raises(StoreError, match="broke off"):
            await store.get("k")
        assert cutter.answers == 0

    use(own(f"redis://127.0.0.1:{cutter.port}"), blocking, scenario)


@SIDES
def test_a_full_server(server: RedisServer, url: str, blocking: bool) -> None:
    """A server without memory refuses writes and answers reads; deletes go on, and make room."""

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        server.ask("CONFIG", "SET", "maxmemory", 1)
        for expect in (version, ABSENT):
            with pytest.raises(StoreError, match="is full"):
                await store.put(f"k{expect}" if expect is ABSENT else "k", b"w", expect=expect)
        assert await store.get("k") == (b"v", version, None)
        assert await store.delete("k", expect=version)
        server.ask("CONFIG", "SET", "maxmemory", 0)
        await store.put("k", b"w", expect=ABSENT)

    use(url, blocking, scenario)


@SIDES
def test_a_demoted_server(server: RedisServer, url: str, blocking: bool) -> None:
    """After a failover the old primary refuses writes, and a store is not opened on it at all; once it
    is the primary again, nothing has to be restarted."""

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreError, match="is a read-only replica"):
            await store.put("k", b"w", expect=version)
        with pytest.raises(StoreError, match="expected the primary"):
            await store.open()
        server.ask("REPLICAOF", "NO", "ONE")
        await store.open()
        await store.put("k", b"w", expect=version)

    use(url, blocking, scenario)


@SIDES
def test_a_name_that_moved(server: RedisServer, url: str, cutter: Cutter, blocking: bool) -> None:
    """When the name leads to another server, and the one of before became its replica, a connection to
    that one is given up: the write is done where the name leads now."""

    async def scenario(store: RedisStore) -> None:
        await store.put("k", b"v")
        cutter.target = other.port
        server.ask("REPLICAOF", "127.0.0.1", other.port)
        await store.put("k", b"w")
        assert (await store.put("l", b"w", expect=ABSENT)) > 0
        assert other.ask("DBSIZE") == 2

    with redis_server() as other:
        use(own(f"redis://127.0.0.1:{cutter.port}"), blocking, scenario)


@SIDES
def test_a_server_that_cannot_save(server: RedisServer, url: str, blocking: bool) -> None:
    """A server that refuses writes because too few replicas would have them says so."""

    async def scenario(store: RedisStore) -> None:
        server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(StoreError, match="has too few replicas"):
            await store.put("k", b"v")

    use(url, blocking, scenario)


@SIDES
def test_more_clients_than_the_server_takes(server: RedisServer, url: str, blocking: bool) -> None:
    """A server that takes no more connections is an error, not an endless wait."""
    server.ask("CONFIG", "SET", "maxclients", 1)
    with socket.create_connection(("127.0.0.1", server.port)) as taken:
        taken.sendall(b"PING\r\n")
        until(lambda: taken.recv(100) == b"+PONG\r\n", "the connection")

        async def scenario(store: RedisStore) -> None:
            with pytest.raises(StoreError, match="Redis at"):
                await store.put("k", b"v")

        use(url, blocking, scenario)


@SIDES
def test_a_process_waits_only_so_long_for_a_connection(
    server: RedisServer, url: str, blocking: bool
) -> None:
    """When all connections of a process wait for a silent server, whoever comes next is told so."""

    async def scenario(store: RedisStore) -> None:
        await store.put("k", b"v")
        server.freeze()
        outcomes: list[Any]
        if blocking:
            outcomes = [None] * 3

            def work(number: int) -> None:
                try:
                    step(store.get("k"))
                except StoreError as error:
                    outcomes[number] = error

            threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            outcomes = await asyncio.gather(*(store.get("k") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, StoreError) for each in outcomes), outcomes

    use(f"{url}&connections=1&timeout={SHORT}", blocking, scenario)


@SIDES
def test_what_belongs_together_is_cut_off(server: RedisServer, cutter: Cutter, blocking: bool) -> None:
    """Several writes are one command. Cut off they are done once, if one of them expects something: it
    recognizes itself, and the others with it. If none does they are sent once."""

    async def scenario(store: RedisStore) -> None:
        await store.put("warm", b"up")
        for moment in ("requests", "answers"):
            before = server.calls()
            setattr(cutter, moment, 1)
            writes = [Write(f"{moment}/any", b"v", None, ANY), Write(moment, b"v", None, ABSENT)]
            versions = await store.put_all(writes)
            for write, version in zip(writes, versions, strict=True):
                assert await store.get(write.key) == (b"v", version, None)
            assert server.calls()["set"] == before["set"] + 2
            assert server.calls()["evalsha"] == before["evalsha"] + (1 if moment == "requests" else 2)
            setattr(cutter, moment, 1)
            with pytest.raises(Conflict):
                await store.put_all(writes)
        cutter.answers = 1
        before = server.calls()
        with pytest.raises(StoreError, match="broke off"):
            await store.put_all([Write(name, b"v", None, ANY) for name in "ab"])
        assert server.calls()["evalsha"] == before["evalsha"] + 1

    use(own(f"redis://127.0.0.1:{cutter.port}"), blocking, scenario)
