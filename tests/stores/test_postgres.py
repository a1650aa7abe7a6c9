"""What is PostgreSQL's own: the URL, the table and who makes it, rights, statements, connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from oauthgate.errors import ConfigError, Conflict, StoreError
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT, make_store, postgres_pool, postgres_schema
from oauthgate.stores.postgres import PostgresStore
from oauthgate.stores.postgres_statements import PURGE_BATCH
from oauthgate.stores.postgres_url import read_url
from tests.servers.postgres import PASSWORD, PgBouncer, Postgres

from .test_sqlite import in_children

T = TypeVar("T")
COLOURS = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "async"])


def use(blocking: bool, work: Coroutine[Any, Any, T]) -> T:
    return step(work) if blocking else asyncio.run(work)


@pytest.fixture
def url(pg: Postgres, schema: str) -> str:
    return pg.url(f"schema={schema}")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """A blocking store that has been opened."""
    found = PostgresStore(url, blocking=True)
    step(found.open())
    yield found
    step(found.close())


async def once(store: PostgresStore, key: str = "k") -> None:
    await store.put(key, b"v")
    await store.close()


# -- the URL


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql:secret", "expected postgresql://"),
        ("postgresql://u:sec%ret@h/db", "percent-encode what is special"),
        ("postgresql://u:secret@h:1,i:0/db", "a port is not a number"),
        ("postgresql://u:secret@h:port/db", "a port is not a number"),
        ("postgresql://u:secret@h/db?schemas=x", 'option 1 after the .* did you mean "schema"'),
        ("postgresql://u:secret@h/db?sslmode=disable&sslmod=x", 'option 2 .* mean "sslmode"'),
        ("postgresql://u:secret@h/db?schema=a&schema=b", "schema is there twice"),
        ("postgresql://u:secret@h/db?schema=", "schema is not a name"),
        (f"postgresql://u:secret@h/db?schema={'é' * 32}", "schema is not a name of 1 to 63 bytes"),
        ("postgresql://u:secret@h/db?schema=%00", "schema is not a name"),
        ("postgresql://u:secret@h/db?schema=%ff", "schema is not a name"),
        ("postgresql://u:secret@h/db?timeout=0", "timeout is not seconds"),
        ("postgresql://u:secret@h/db?timeout=nan", "timeout is not seconds"),
        ("postgresql://u:secret@h/db?connections=0", "connections is not a number"),
        ("postgresql://u:12/secret@h/db", "'@' too many"),
        ("postgresql://u:12@secret@h/db", "'@' too many"),
        ("postgresql://u:12/secret?x@h/db", "option 1 after the '.' is not known"),
        ("postgresql://u:secret@[h/db", "the URL cannot be read"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, message: str) -> None:
    """The error says what is wrong with the URL, and shows nothing of it that could be a password."""
    with pytest.raises(ConfigError, match=message) as refused:
        PostgresStore(url)
    assert "secret" not in str(refused.value) and "sec%ret" not in str(refused.value)


def test_what_the_url_says_goes_to_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter of libpq passes, several hosts too; ours are taken out, and defaults fill the
    rest."""
    monkeypatch.delenv("PGTARGETSESSIONATTRS", raising=False)
    place = read_url(
        "postgres://u:p?q%2F@one,two:7000/db?schema=a%20b&sslmode=verify-full&timeout=2"
        "&application_name=x@y&connections=3"
    )
    assert (place.schema, place.timeout, place.connections) == ("a b", 2.0, 3)
    given = {"user": "u", "password": "p?q/", "dbname": "db", "sslmode": "verify-full"}
    given |= {"host": "one,two", "port": ",7000", "application_name": "x@y"}
    assert given.items() <= place.parameters.items()
    assert place.parameters["target_session_attrs"] == "read-write"
    assert str(place) == "one,two:7000/db"
    assert "p?q" not in repr(place)

    socket = read_url("postgresql:///db?host=/run/pg&target_session_attrs=any&connect_timeout=9")
    assert socket.parameters["host"] == "/run/pg"
    assert socket.parameters["target_session_attrs"] == "any"
    assert socket.parameters["connect_timeout"] == "9"
    assert (socket.schema, socket.timeout, socket.connections) == ("public", 5.0, 10)
    assert read_url("postgresql://h?host=/a/b@c&schema=d").schema == "d"

    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert "target_session_attrs" not in read_url("postgresql:///db").parameters


@COLOURS
def test_the_socket_works_too(pg: Postgres, schema: str, blocking: bool) -> None:
    """`host=` may be the folder of a socket, and an application name arrives at the server."""
    options = f"schema={schema}&application_name={schema}"
    store = PostgresStore(pg.socket_url(options), blocking=blocking)

    async def test() -> None:
        await store.put("k", b"v")
        assert len(pg.connections(schema)) == 1
        await store.close()

    use(blocking, test())


def test_without_psycopg(url: str) -> None:
    """What to install is said where the store is made."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from oauthgate.stores import make_store\n"
        "make_store('postgresql://h/db', blocking=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: [oauthgate] store: PostgreSQL needs psycopg; install it with: pip install " in (
        done.stderr
    )
    assert '"oauthgate[postgres]"' in done.stderr
    assert "During handling" not in done.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes(pg: Postgres, schema: str, scheme: str) -> None:
    """Both of libpq's schemes make this store, whose repr and attributes show no password."""
    store = make_store(pg.url(f"schema={schema}", scheme=scheme), blocking=True)
    assert isinstance(store, PostgresStore)
    step(once(store))
    assert repr(store) == f"PostgresStore('127.0.0.1:{pg.port}/gate', schema='{schema}')"
    assert not any(PASSWORD in repr(value) for value in vars(store).values())


# -- the table


@COLOURS
@pytest.mark.parametrize("through", ["directly", "pgbouncer"])
def test_eight_processes_make_one_table(
    pg: Postgres, bouncer: PgBouncer, schema: str, blocking: bool, through: str
) -> None:
    """Workers that start together on an empty database make one table, and every write is there."""
    for attempt in range(3):
        options = f"schema={schema}{attempt}"
        url = bouncer.url(options) if through == "pgbouncer" else pg.url(options)

        def work(number: int, url: str = url) -> None:
            use(blocking, once(PostgresStore(url, blocking=blocking), f"worker/{number}"))

        assert in_children(*(lambda n=number: work(n) for number in range(8))) == [0] * 8
        assert pg.admin(f"SELECT count(*) FROM {schema}{attempt}.oauthgate") == "8"


def test_eight_processes_migrate_once(
    pg: Postgres, url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of an older version is brought up to date by one of them, with its records."""
    step(once(PostgresStore(url, blocking=True), "old"))
    monkeypatch.setattr(
        postgres_schema,
        "MIGRATIONS",
        [*postgres_schema.MIGRATIONS, ["ALTER TABLE {name} ADD extra int"]],
    )
    monkeypatch.setattr(postgres_schema, "VERSION", 2)
    monkeypatch.setattr(
        postgres_schema, "_SET_VERSION", "COMMENT ON TABLE {name} IS 'oauthgate schema 2'"
    )
    works = (
        lambda n=number: step(once(PostgresStore(url, blocking=True), f"{n}")) for number in range(8)
    )
    assert in_children(*works) == [0] * 8
    assert pg.admin(f"SELECT obj_description('{schema}.oauthgate'::regclass)") == "oauthgate schema 2"
    assert pg.admin(f"SELECT count(extra), count(*) FROM {schema}.oauthgate") == "0|9"


@COLOURS
def test_a_newer_table_is_refused(pg: Postgres, url: str, schema: str, blocking: bool) -> None:
    """A table of a newer version is neither read nor changed, and the error says what to do."""
    use(blocking, once(PostgresStore(url, blocking=blocking)))
    pg.admin(f"COMMENT ON TABLE {schema}.oauthgate IS 'oauthgate schema 2'")
    store = PostgresStore(url, blocking=blocking)
    for work in (store.open(), store.get("k"), store.put("k", b"no"), store.purge(1)):
        with pytest.raises(StoreError, match=r"newer oauthgate \(schema 2, this one knows 1\): upgrade"):
            use(blocking, work)
    assert pg.admin(f"SELECT value FROM {schema}.oauthgate") == r"\x76"
    use(blocking, store.close())


def test_a_table_without_its_comment(pg: Postgres, url: str, schema: str) -> None:
    """A restore that left comments out leaves a table of the first version."""
    step(once(PostgresStore(url, blocking=True)))
    pg.admin(f"COMMENT ON TABLE {schema}.oauthgate IS NULL")
    store = PostgresStore(url, blocking=True)
    assert step(store.get("k")) is not None
    step(store.close())


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("id int", r"UndefinedColumn.*not ours; choose another schema"),
        (
            "key bytea PRIMARY KEY, value bytea, version int DEFAULT 1, expires_at real DEFAULT 1",
            r"other types of columns than ours|NumericValueOutOfRange",
        ),
    ],
)
def test_somebody_elses_table(pg: Postgres, schema: str, url: str, columns: str, words: str) -> None:
    """A table of that name with other columns is an error that says so."""
    pg.admin(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.oauthgate ({columns}); "
        f"GRANT ALL ON SCHEMA {schema} TO gate; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO gate"
    )
    if "key" in columns:
        pg.admin(f"INSERT INTO {schema}.oauthgate (key, value) VALUES ('k', 'v')")
    store = PostgresStore(url, blocking=True)
    for work in (store.get("k"), store.put("k", b"v"), store.delete("k")):
        with pytest.raises(StoreError, match=words):
            step(work)
    step(store.close())


def test_a_role_that_may_not_create(pg: Postgres, schema: str) -> None:
    """It works on a table that is there, and says what is missing where there is none."""
    role = f"r{schema}"
    pg.admin(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    store = PostgresStore(pg.url(f"schema={schema}", user=role), blocking=True)
    with pytest.raises(StoreError, match=r"InsufficientPrivilege \(42501\); the role may not do this"):
        step(store.open())
    step(once(PostgresStore(pg.url(f"schema={schema}"), blocking=True)))
    with pytest.raises(StoreError, match="InsufficientPrivilege"):
        step(store.get("k"))
    pg.admin(
        f"GRANT USAGE ON SCHEMA {schema} TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.oauthgate TO {role}"
    )
    version = step(store.put("k", b"w"))
    assert step(store.get("k")) == (b"w", version, None)
    assert step(store.purge(time.time())) == 0
    step(store.close())


def test_a_database_in_another_encoding(pg: Postgres, schema: str) -> None:
    """Keys are bytes: the database's encoding and collation do not matter."""
    pg.admin(f"CREATE DATABASE {schema} OWNER gate TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    store = PostgresStore(pg.url("schema=%EA%B0%80").replace("/gate?", f"/{schema}?"), blocking=True)
    with pytest.raises(StoreError, match="UntranslatableCharacter"):
        step(store.open())  # a schema's name is text, and cannot be said in that database
    step(store.close())
    store = PostgresStore(pg.url().replace("/gate?", f"/{schema}?"), blocking=True)
    step(store.put("user/\uac00\0\udc00", b"v"))
    assert _scanned(store, "user/") == ["user/\uac00\0\udc00"]
    step(store.close())


# -- statements


def statements(pg: Postgres, since: int) -> list[str]:
    """What clients other than the administrator sent, in PostgreSQL's log."""
    lines = pg.log.read_bytes()[since:].decode().splitlines()
    marks = (" statement: ", " execute ", " parse ")
    return [line for line in lines if " psql " not in line and any(mark in line for mark in marks)]


@COLOURS
def test_one_statement_for_each_operation(pg: Postgres, url: str, blocking: bool) -> None:
    """Nothing goes with it: no transaction, no check of the connection, no setting."""

    async def test() -> None:
        store = PostgresStore(url, blocking=blocking)
        await store.open()
        operations: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: store.put("k", b"v", expect=ABSENT),
            lambda: store.get("k"),
            lambda: store.put("k", b"v"),
            lambda: store.delete("k"),
            lambda: store.purge(1.0),
        ]
        for operation in operations:
            before = pg.log.stat().st_size
            await operation()
            sent = statements(pg, before)
            assert len(sent) == 1 and "execute <unnamed>: " in sent[0], sent
        await store.close()

    use(blocking, test())


def test_purge_goes_in_batches(pg: Postgres, store: PostgresStore, schema: str) -> None:
    """A purge of many is many short transactions, and leaves for later what another one holds."""
    total = 2 * PURGE_BATCH + 17
    pg.admin(
        f"INSERT INTO {schema}.oauthgate SELECT convert_to('dead/' || n, 'UTF8'), '', 1, 1 "
        f"FROM generate_series(1, {total}) AS n"
    )
    with pg.locking(f"SELECT 1 FROM {schema}.oauthgate WHERE key = 'dead/7' FOR UPDATE"):
        before = pg.log.stat().st_size
        assert step(store.purge(time.time())) == total - 1
        assert len(statements(pg, before)) == 3
    assert step(store.purge(time.time())) == 1


def test_a_serializable_database_loses_nothing(pg: Postgres, schema: str) -> None:
    """Where the default isolation makes the server undo one of two writers, it is asked again."""
    pg.admin("ALTER ROLE gate SET default_transaction_isolation = 'serializable'")
    try:
        url = pg.url(f"schema={schema}")
        assert in_children(*([lambda: count_up(url, 60)] * 4)) == [0] * 4
    finally:
        pg.admin("ALTER ROLE gate RESET default_transaction_isolation")
    assert pg.admin(f"SELECT convert_from(value, 'UTF8') FROM {schema}.oauthgate") == "240"


def count_up(url: str, steps: int) -> None:
    """Count by compare-and-swap in the record `count`."""
    store = PostgresStore(url, blocking=True)
    done = 0
    while done < steps:
        record = step(store.get("count"))
        value = b"%d" % (int(record.value) + 1 if record else 1)
        try:
            step(store.put("count", value, expect=record.version if record else ABSENT))
        except Conflict:
            continue
        done += 1
    step(store.close())


def test_two_processes_lose_no_increment(pg: Postgres, url: str, schema: str) -> None:
    """Two processes that count by compare-and-swap arrive at the sum."""
    assert in_children(lambda: count_up(url, 300), lambda: count_up(url, 300)) == [0, 0]
    assert pg.admin(f"SELECT convert_from(value, 'UTF8') FROM {schema}.oauthgate") == "600"


def test_a_version_that_is_no_bigint(store: PostgresStore) -> None:
    """Whatever number a writer expects, one that is not there is a conflict."""
    step(store.put("k", b"v"))
    for number in (2**63, -(2**63) - 1, 2**200):
        with pytest.raises(Conflict):
            step(store.put("k", b"no", expect=number))
        with pytest.raises(Conflict):
            step(store.delete("k", expect=number))


def _scanned(store: PostgresStore, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return [key async for key, _ in store.scan(prefix)]

    return step(collect())


def test_no_snapshot_is_held_while_scanning(pg: Postgres, store: PostgresStore, schema: str) -> None:
    """Between two pages the server knows of no transaction of ours, so that it can clean up."""
    pg.admin(
        f"INSERT INTO {schema}.oauthgate SELECT convert_to('many/' || n, 'UTF8'), '', 1, NULL "
        "FROM generate_series(1, 450) AS n"
    )

    async def test() -> int:
        seen = 0
        async for _ in store.scan("many/"):
            seen += 1
            if seen % 150 == 0:
                found = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'oauthgate' AND "
                assert pg.admin(f"{found} (state <> 'idle' OR backend_xmin IS NOT NULL)") == "0"
        return seen

    assert step(test()) == 450


# -- connections


def test_threads_share_few_connections(pg: Postgres, schema: str) -> None:
    """Twelve threads on three connections: nobody fails, nothing is mixed up."""
    store = PostgresStore(
        pg.url(f"schema={schema}&connections=3&application_name={schema}"), blocking=True
    )
    failures: list[BaseException] = []
    most = 0

    def work(number: int) -> None:
        try:
            for turn in range(20):
                step(store.put(f"t/{number}", b"%d" % turn))
                record = step(store.get(f"t/{number}"))
                assert record is not None and record.value == b"%d" % turn
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(pg.connections(schema)))
    for thread in threads:
        thread.join()
    step(store.close())
    assert failures == []
    assert 1 <= most <= 3


def test_tasks_share_few_connections(pg: Postgres, schema: str) -> None:
    """The same for two hundred tasks on one event loop, some of which give up while they wait."""

    async def test() -> int:
        options = f"schema={schema}&connections=3&application_name={schema}"
        store = PostgresStore(pg.url(options), blocking=False)
        await store.open()

        async def work(number: int) -> None:
            await store.put(f"t/{number}", b"%d" % number)
            record = await store.get(f"t/{number}")
            assert record is not None and record.value == b"%d" % number

        tasks = [asyncio.create_task(work(number)) for number in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::10]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results if each] == [asyncio.CancelledError] * 20
        found = len(pg.connections(schema))
        await asyncio.gather(*(work(number) for number in range(20)))
        await store.close()
        return found

    assert 1 <= asyncio.run(test()) <= 3


@COLOURS
def test_connections_are_renewed_and_let_go(
    pg: Postgres, schema: str, blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that nobody needs any more is closed, and an old one is replaced."""
    store = PostgresStore(pg.url(f"schema={schema}&application_name={schema}"), blocking=blocking)

    async def test() -> None:
        await store.open()
        first = pg.connections(schema)
        await store.get("k")
        assert pg.connections(schema) == first
        monkeypatch.setattr(postgres_pool, "LIFETIME", -1.0)
        await store.get("k")
        await _until(lambda: pg.connections(schema) == [])
        monkeypatch.undo()
        pool = store._links()
        deadline = time.monotonic() + 5
        links = [await pool.take(deadline) for _ in range(3)]
        for link in links:
            pool.give(link)
        assert len(pg.connections(schema)) == 3
        monkeypatch.setattr(postgres_pool, "IDLE", -1.0)
        for _ in range(3):
            await store.get("k")
        await _until(lambda: pg.connections(schema) == [])
        await store.close()

    use(blocking, test())


async def _until(true: Callable[[], bool]) -> None:
    """Wait for what the server does a moment later."""
    for _ in range(200):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def test_a_loop_per_request_leaves_nothing_open(pg: Postgres, schema: str) -> None:
    """A test client that makes an event loop per request works, and every loop's connections end."""
    store = PostgresStore(pg.url(f"schema={schema}&application_name={schema}"), blocking=False)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))

    async def many() -> None:
        await asyncio.gather(*(store.put(f"k/{number}", b"v") for number in range(20)))

    for _ in range(4):
        asyncio.run(many())
    step(_until(lambda: pg.connections(schema) == []))
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_a_store_that_nobody_closes(pg: Postgres, schema: str) -> None:
    """Its connections end with it, without a warning."""
    store = PostgresStore(pg.url(f"schema={schema}&application_name={schema}"), blocking=True)
    step(store.open())
    assert len(pg.connections(schema)) == 1
    del store
    step(_until(lambda: pg.connections(schema) == []))


def test_no_thread_is_made_when_stepped(store: PostgresStore) -> None:
    """Under WSGI everything happens on the caller's thread."""
    before = threading.active_count()
    step(store.put("k", b"v"))
    step(store.get("k"))
    assert threading.active_count() == before
