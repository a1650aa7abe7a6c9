"""PostgreSQL that is gone, frozen, locked, read-only or lying: an error, never a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT, ANY, Write
from oauthgate.stores.postgres import PostgresStore
from tests.servers import free_port
from tests.servers.postgres import PASSWORD, PgBouncer, Postgres

from .cutter import Cutter, to_postgres
from .test_postgres import COLOURS, once, use

T = TypeVar("T")
#: Of a store that is to meet a fault, in seconds.
SHORT = "timeout=0.5&connect_timeout=2"


@contextlib.contextmanager
def stopped(pg: Postgres) -> Iterator[None]:
    pg.stop()
    try:
        with unheard(pg.port):
            yield
    finally:
        pg.start()


@contextlib.contextmanager
def unheard(port: int) -> Iterator[None]:
    """The port is bound and nobody listens at it: whoever held it has let go, and nobody takes it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(500):
            with contextlib.suppress(OSError):
                held.bind(("127.0.0.1", port))
                break
            time.sleep(0.02)  # between two tries to bind
        assert held.getsockname() == ("127.0.0.1", port)
        yield


def operations(store: PostgresStore) -> list[Callable[[], Coroutine[Any, Any, object]]]:
    async def scan() -> None:
        async for _ in store.scan("k"):
            pass

    return [
        store.open,
        lambda: store.get("k"),
        lambda: store.put("k", b"no"),
        lambda: store.put("new", b"no", expect=ABSENT),
        lambda: store.put("k", b"no", expect=1),
        lambda: store.delete("k"),
        lambda: store.delete("k", expect=1),
        lambda: store.purge(1.0),
        scan,
    ]


async def fails(work: Coroutine[Any, Any, object], *words: str) -> None:
    """It is a `StoreError` that says why, and neither an answer nor a conflict."""
    with pytest.raises(StoreError) as failed:
        await work
    assert not isinstance(failed.value, Conflict)
    assert PASSWORD not in str(failed.value)
    for word in words:
        assert word in str(failed.value)


@COLOURS
def test_a_server_that_is_stopped(pg: Postgres, schema: str, blocking: bool) -> None:
    """Every operation fails at once and says why; when the server is back, the same store works."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}"), blocking=blocking)
        fresh = PostgresStore(pg.url(f"schema={schema}"), blocking=blocking)
        version = await store.put("k", b"v")
        with stopped(pg):
            for one in (store, fresh):
                for operation in operations(one):
                    await fails(operation(), "no connection", "refused", f"127.0.0.1:{pg.port}/gate")
        assert await store.get("k") == (b"v", version, None)
        assert await fresh.get("new") is None
        await store.close()
        await fresh.close()

    use(blocking, test())


@COLOURS
def test_a_restart_between_two_requests(pg: Postgres, schema: str, blocking: bool) -> None:
    """Idle connections that the server ended are noticed before they are used: nothing fails, not even
    a write."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}"), blocking=blocking)
        pool = store._links()
        deadline = time.monotonic() + 5
        for link in [await pool.take(deadline) for _ in range(4)]:
            pool.give(link)
        version = await store.put("k", b"v")
        with stopped(pg):
            pass
        version = await store.put("k", b"w", expect=version)
        with stopped(pg):
            pass
        assert await store.get("k") == (b"w", version, None)
        await store.close()

    use(blocking, test())


def test_a_server_that_is_stopped_behind_pgbouncer(
    pg: Postgres, bouncer: PgBouncer, schema: str
) -> None:
    """PgBouncer takes the connection and has no server: an error too, and it passes by itself."""
    store = PostgresStore(bouncer.url(f"schema={schema}&timeout=0.5"), blocking=True)
    version = step(store.put("k", b"v"))
    with stopped(pg):
        step(fails(store.get("k"), "no answer in 0.5 s"))
        step(fails(store.put("k", b"no", expect=version), "PostgreSQL at"))
    for _ in range(200):
        try:
            assert step(store.get("k")) == (b"v", version, None)
            break
        except StoreError:
            time.sleep(0.05)
    assert step(store.put("k", b"w", expect=version)) == version + 1
    with stopped(pg):
        # Until PgBouncer has heard of it, it would hand the write to a connection that has ended.
        for _ in range(500):
            if bouncer.servers() == 0:
                break
            time.sleep(0.02)  # between two looks at the log of PgBouncer
        assert bouncer.servers() == 0
    assert step(store.put("k", b"x", expect=version + 1)) == version + 2
    step(store.close())


@COLOURS
def test_a_server_that_hangs(pg: Postgres, schema: str, blocking: bool) -> None:
    """A stopped process keeps its sockets open and says nothing: an error after `timeout`, and under
    ASGI the event loop goes on meanwhile."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}&{SHORT}"), blocking=blocking)
        fresh = PostgresStore(pg.url(f"schema={schema}&{SHORT}"), blocking=blocking)
        version = await store.put("k", b"v")
        with pg.frozen():
            if blocking:
                await fails(store.get("k"), "no answer in 0.5 s")
                await fails(store.put("k", b"v", expect=version), "no connection", "timeout")
            else:
                work = [fails(store.get("k"), "no answer"), *(fails(store.get("k")) for _ in range(20))]
                waiting = asyncio.gather(*work, fails(fresh.open(), "no connection", "timeout"))
                turns = 0
                while not waiting.done():
                    await asyncio.sleep(0.01)
                    turns += 1
                await waiting
                assert turns > 20
        assert await store.get("k") == (b"v", version, None)
        await fresh.get("k")
        await store.close()
        await fresh.close()

    use(blocking, test())


@COLOURS
@pytest.mark.parametrize("through", ["directly", "pgbouncer"])
def test_a_locked_table(
    pg: Postgres, bouncer: PgBouncer, schema: str, blocking: bool, through: str
) -> None:
    """Who waits for another session's lock gives up after `timeout`, and takes the statement back: it is
    not done later, when nobody expects it any more."""
    options = f"schema={schema}&timeout=0.3"

    async def test() -> None:
        store = PostgresStore(
            bouncer.url(options) if through == "pgbouncer" else pg.url(options), blocking=blocking
        )
        version = await store.put("k", b"v")
        with pg.locking(f"LOCK TABLE {schema}.oauthgate"):
            await fails(store.get("k"), "no answer in 0.3 s", "lock")
            await fails(store.put("k", b"late", expect=version), "no answer in 0.3 s")
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert pg.admin(waiting) == "0"
        assert await store.get("k") == (b"v", version, None)
        await store.close()

    use(blocking, test())


def in_the_middle(pg: Postgres, schema: str, then: str) -> threading.Thread:
    """As soon as a backend waits for a lock in this schema: do `then` to it."""

    def work() -> None:
        found = f"FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%'"
        while pg.admin(f"SELECT count(*) {found}") == "0":
            time.sleep(0.02)
        pg.admin(f"SELECT {then}(pid) {found}")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@COLOURS
@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_write_that_is_cut_off(pg: Postgres, schema: str, blocking: bool, how: str) -> None:
    """A connection that is ended, or a statement that is cancelled, in the middle of a write is an
    error, and the write is not tried again."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}"), blocking=blocking)
        version = await store.put("k", b"v")
        with pg.locking(f"SELECT 1 FROM {schema}.oauthgate FOR UPDATE"):
            thread = in_the_middle(pg, schema, how)
            said = "the connection ended: AdminShutdown" if "terminate" in how else "QueryCanceled"
            await fails(store.put("k", b"w", expect=version), said)
            thread.join()
        assert await store.get("k") == (b"v", version, None)
        await store.close()

    use(blocking, test())


@COLOURS
def test_a_read_that_is_cut_off(pg: Postgres, schema: str, blocking: bool) -> None:
    """A read whose connection is ended is done once more on a new one."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}&application_name={schema}"), blocking=blocking)
        version = await store.put("k", b"v")
        (first,) = pg.connections(schema)
        locked = contextlib.ExitStack()
        locked.enter_context(pg.locking(f"LOCK TABLE {schema}.oauthgate"))

        def then() -> None:
            in_the_middle(pg, schema, "pg_terminate_backend").join()
            locked.close()

        thread = threading.Thread(target=then)
        thread.start()
        assert await store.get("k") == (b"v", version, None)
        thread.join()
        assert first not in pg.connections(schema)
        await store.close()

    use(blocking, test())


@COLOURS
def test_an_answer_that_is_lost(pg: Postgres, schema: str, blocking: bool) -> None:
    """A write whose answer is lost was done and is an error all the same: it is not sent again, which
    would be done twice or refused as a conflict with itself. A read is repeated once, not for ever."""
    relay = Cutter(pg.port, to_postgres)

    async def test() -> None:
        url = pg.url(f"schema={schema}&gssencmode=disable&sslmode=disable").replace(
            f":{pg.port}/", f":{relay.port}/"
        )
        store = PostgresStore(url, blocking=blocking)
        version = await store.put("k", b"v")
        relay.answers = 1
        await fails(store.put("k", b"w", expect=version), "the connection ended")
        record = await store.get("k")
        assert record == (b"w", version + 1, None)
        made = relay.connections
        relay.answers = 1
        assert await store.get("k") == record
        assert relay.connections == made + 1
        relay.answers = 99
        await fails(store.get("k"))
        assert relay.connections == made + 2
        relay.answers = 0
        assert await store.delete("k", expect=version + 1) is True
        await store.close()

    try:
        use(blocking, test())
    finally:
        relay.close()


def test_a_task_that_is_cancelled_in_the_middle(pg: Postgres, schema: str) -> None:
    """Its connection is not used again, where the next one would be given its answer."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}&connections=1"), blocking=False)
        for number in range(3):
            await store.put(f"k/{number}", b"%d" % number)
        with pg.locking(f"LOCK TABLE {schema}.oauthgate"):
            for number in range(3):
                task = asyncio.create_task(store.get(f"k/{number}"))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        for number in range(3):
            record = await store.get(f"k/{number}")
            assert record is not None and record.value == b"%d" % number
        await store.close()

    asyncio.run(test())


@COLOURS
def test_all_connections_busy(pg: Postgres, schema: str, blocking: bool) -> None:
    """Who gets no connection in time is told so, and what to raise."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}&connections=1&timeout=0.3"), blocking=blocking)
        await store.open()
        pool = store._links()
        link = await pool.take(time.monotonic() + 5)
        await fails(store.get("k"), "all 1 connections", "raise ?connections=")
        pool.give(link)
        assert await store.get("k") is None
        await store.close()

    use(blocking, test())


def test_greenlets_go_on_while_one_waits(pg: Postgres, schema: str) -> None:
    """Under gevent a wait for the server is the greenlet's, not the process's."""
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent
from oauthgate.errors import StoreError
from oauthgate.stepping import run
from oauthgate.stores import make_store
store = make_store({pg.url(f"schema={schema}&timeout=1")!r}, blocking=True)
def ask():
    try:
        run(store.get("k"))
    except StoreError as error:
        return str(error)
asking = gevent.spawn(ask)
turns = 0
while not asking.ready():
    gevent.sleep(0.01)
    turns += 1
assert "no answer in 1 s" in asking.value, asking.value
assert turns > 20, turns
run(store.close())
"""
    step(once(PostgresStore(pg.url(f"schema={schema}"), blocking=True)))
    with pg.locking(f"LOCK TABLE {schema}.oauthgate"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@COLOURS
def test_a_server_that_turns_read_only(pg: Postgres, schema: str, blocking: bool) -> None:
    """A standby is refused, also when an open connection turns out to lead to one; when there is a
    primary again, the store works."""

    async def test() -> None:
        store = PostgresStore(pg.url(f"schema={schema}"), blocking=blocking)
        version = await store.put("k", b"v")
        pool = store._links()
        for link in [await pool.take(time.monotonic() + 5) for _ in range(3)]:
            pool.give(link)
        try:
            pg.admin("ALTER SYSTEM SET default_transaction_read_only = on", "postgres")
            pg.admin("SELECT pg_reload_conf()")
            while pg.admin("SHOW default_transaction_read_only") != "on":
                time.sleep(0.01)
            # The first may meet the connection before the server has read its configuration anew.
            with contextlib.suppress(StoreError):
                while True:
                    version = await store.put("k", b"v")
                    time.sleep(0.01)
            await fails(store.get("k"), "no connection", "read-only")
            await fails(store.put("k", b"w"), "no connection", "read-only")
        finally:
            pg.admin("SET default_transaction_read_only = off; ALTER SYSTEM RESET ALL", "postgres")
            pg.admin("SELECT pg_reload_conf()")
            while pg.admin("SHOW default_transaction_read_only") != "off":
                time.sleep(0.01)
        assert await store.get("k") == (b"v", version, None)
        await store.close()

    use(blocking, test())


@COLOURS
def test_a_wrong_password(pg: Postgres, schema: str, blocking: bool) -> None:
    """The message names role and server, not the password."""
    url = pg.url(f"schema={schema}").replace("correct", "very-wrong")
    store = PostgresStore(url, blocking=blocking)
    with pytest.raises(StoreError, match='password authentication failed for user "gate"') as failed:
        use(blocking, store.get("k"))
    assert "wrong" not in str(failed.value)


@COLOURS
def test_a_server_that_says_the_password_back(blocking: bool) -> None:
    """What a server says may stand in a log: the password is taken out of it, and control characters."""

    def serve(listener: socket.socket) -> None:
        with listener, listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
            said = client.recv(1000)[5:-1]
            fields = b"SFATAL\0C28P01\0Mno \x1b[31m" + said + b"\nnor s%C3%A9same/\0\0"
            client.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    url = f"postgresql://u:s%C3%A9same%2F@127.0.0.1:{port}/db?sslmode=disable&gssencmode=disable"
    with pytest.raises(StoreError) as failed:
        use(blocking, PostgresStore(url, blocking=blocking).open())
    thread.join()
    said = str(failed.value)
    assert "***" in said and "sésame" not in said and "s%C3%A9same" not in said
    assert said.isprintable()


def test_a_host_that_is_none() -> None:
    """A name that cannot be looked up is an error of the store, whatever is wrong with it."""
    for host in ("h" * 70, "a..b", "nowhere.invalid"):
        store = PostgresStore(f"postgresql://u:sesame@{host}/db", blocking=True)
        with pytest.raises(StoreError, match="no connection"):
            step(store.open())


def test_several_hosts(pg: Postgres, schema: str) -> None:
    """Where the first does not answer, the next one is asked."""
    url = pg.url(f"schema={schema}").replace("@127.0.0.1", f"@127.0.0.1:{free_port()},127.0.0.1")
    store = PostgresStore(url, blocking=True)
    version = step(store.put("k", b"v"))
    assert step(store.get("k")) == (b"v", version, None)
    step(store.close())


@COLOURS
def test_what_belongs_together_is_one_statement(pg: Postgres, schema: str, blocking: bool) -> None:
    """One round trip, done or not: when its answer is lost that cannot be told, so it is sent once."""
    relay = Cutter(pg.port, to_postgres)

    async def test() -> None:
        url = pg.url(f"schema={schema}&gssencmode=disable&sslmode=disable")
        store = PostgresStore(url.replace(f":{pg.port}/", f":{relay.port}/"), blocking=blocking)
        writes = [Write("k/1", b"v", None, ABSENT), Write("k/2", b"v", None, ANY)]
        await store.open()
        sent = pg.said().count("WITH w0 AS")
        versions = await store.put_all(writes)
        assert pg.said().count("WITH w0 AS") == sent + 1
        for moment, value in (("requests", b"v"), ("answers", b"w")):
            setattr(relay, moment, 1)
            changed = [
                Write(write.key, b"w", None, version)
                for write, version in zip(writes, versions, strict=True)
            ]
            await fails(store.put_all(changed), "the connection ended")
            for write in writes:
                record = await store.get(write.key)
                assert record is not None and record.value == value
        await store.close()

    try:
        use(blocking, test())
    finally:
        relay.close()


@COLOURS
def test_a_server_that_hangs_up(blocking: bool) -> None:
    """What ends before the server has said anything is begun again, a few times: so a connection that
    was refused says so, although libpq took it for one that was made."""
    place = "postgresql://u:p@127.0.0.1:{}/db?timeout=5&connect_timeout=5&sslmode=disable"
    taken = 0

    def hang_up(times: int) -> None:
        nonlocal taken
        for _ in range(times):
            listener.accept()[0].close()
            taken += 1
        listener.close()

    async def test(port: int, why: str) -> None:
        store = PostgresStore(place.format(port), blocking=blocking)
        await fails(store.get("k"), "no connection", why)

    for times, why in ((1, "refused"), (3, "closed the connection")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taken = 0
            thread = threading.Thread(target=hang_up, args=(times,))
            thread.start()
            use(blocking, test(listener.getsockname()[1], why))
            thread.join(10)
            assert taken == times


@COLOURS
def test_no_connection_leaves_nothing_behind(blocking: bool) -> None:
    """A server that takes a connection and says nothing: what does not become one is closed at once."""
    place = "postgresql://u:p@127.0.0.1:{}/db?timeout=0.5&connect_timeout=2"

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = PostgresStore(place.format(silent.getsockname()[1]), blocking=blocking)
            errors = []
            for _ in range(2):
                with pytest.raises(StoreError, match="timeout") as failed:
                    await store.get("k")
                errors.append(failed.value)  # a log may keep them
                with silent.accept()[0] as taken:
                    taken.settimeout(10)
                    while taken.recv(1000):
                        """What it says of itself, until it has closed."""

    gc.disable()
    try:
        use(blocking, test())
    finally:
        gc.enable()
