"""The engines of the fault table: for each an empty store, and the ways in which it can fail."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from oauthgate.stores.dynamodb_table import create
from tests.servers import free_port
from tests.servers.dynamodb import DynamoDB, Front
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer, until

from . import dynamodb_places, redis_places
from .cutter import Cutter, to_postgres, to_redis
from .small_disk import SmallDisk, small_disk

#: Of a store that is to meet a fault: seconds for an answer.
PATIENCE = "timeout=0.5"
#: What is read goes on meanwhile, or fails too.
READS, NOTHING = True, False
#: What befalls each engine, and what goes on meanwhile.
TABLE = {
    "sqlite": {"disk full": READS, "locked": READS},
    "redis": {
        "stopped": NOTHING,
        "paused": NOTHING,
        "disk full": READS,
        "memory full": READS,
        "failing over": READS,
    },
    "postgres": {
        "stopped": NOTHING,
        "paused": NOTHING,
        "disk full": READS,
        "locked": NOTHING,
        "failing over": NOTHING,
        "table gone": NOTHING,
    },
    "dynamodb": {
        "unreachable": NOTHING,
        "paused": NOTHING,
        "throttled": NOTHING,
        "table gone": NOTHING,
    },
}
FAULTS = [(engine, fault) for engine, faults in TABLE.items() for fault in faults]


@dataclass
class Place:
    """A store that is empty, `begin` for each of its faults, and `lose` for losing all that is in it.

    `far` is the same by way of a proxy, in which `cut` breaks the connection at a request or at its
    answer: how many are spared before, and which of the two. `uncut` says whether that is still to come,
    and takes it back.
    """

    url: str
    far: str = ""
    begin: dict[str, Callable[[], AbstractContextManager[None]]] = field(default_factory=dict)
    lose: Callable[[], None] = lambda: None
    cut: Callable[[int, str], None] = lambda spare, moment: None
    uncut: Callable[[], bool] = lambda: False


@contextlib.contextmanager
def _between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


def _by_way_of(cutter: Cutter, url: str) -> str:
    return url.replace(f":{cutter.target}", f":{cutter.port}")


def _cutting(place: Place, cutter: Cutter) -> Place:
    def cut(spare: int, moment: str) -> None:
        cutter.spare = spare
        setattr(cutter, moment, 1)

    def uncut() -> bool:
        left = bool(cutter.requests or cutter.answers)
        cutter.spare = cutter.requests = cutter.answers = 0
        return left

    place.cut, place.uncut = cut, uncut
    return place


# -- SQLite


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    """A file on a small disk."""
    with small_disk(folder / "small") as disk:
        path = disk.folder / "gate.db"
        place = Place(f"sqlite:///{path}")
        place.begin = {
            "disk full": lambda: _full_of_file(disk, path),
            "locked": lambda: locked_file(path),
        }
        yield place


@contextlib.contextmanager
def _full_of_file(disk: SmallDisk, path: Path) -> Iterator[None]:
    wal = path.with_name(f"{path.name}-wal")
    disk.fill([os.getpid()], max(wal.stat().st_size, path.stat().st_size))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # What room the files have left of themselves is used up too.
        for size in (20_000, 4_000, 10):
            with contextlib.suppress(sqlite3.Error):
                while True:
                    row = (f"filler/{secrets.token_hex(8)}", os.urandom(size))
                    connection.execute("INSERT INTO oauthgate VALUES (?, ?, 1, NULL)", row)
        try:
            yield
        finally:
            disk.free()
            connection.execute("DELETE FROM oauthgate WHERE key LIKE 'filler/%'")


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
        "connection.execute('ROLLBACK')\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate()


# -- Redis


@contextlib.contextmanager
def redis(server: RedisServer, disk: SmallDisk) -> Iterator[Place]:
    """Records of one test on a server that has its files on a small disk."""
    with contextlib.closing(Cutter(server.port, to_redis)) as cutter:
        url = redis_places.own(f"redis://127.0.0.1:{server.port}?{PATIENCE}")

        def configure(*settings: str | int) -> None:
            server.ask("CONFIG", "SET", *settings)

        def full() -> None:
            configure("maxmemory", 1)

        def lose() -> None:
            server.stop()
            for path in server.folder.glob("appendonlydir/*"):
                path.unlink()
            for path in disk.folder.glob("appendonlydir/*"):
                path.unlink()
            server.start()
            assert server.ask("DBSIZE") == 0

        place = Place(url, _by_way_of(cutter, url), lose=lose)
        place.begin = {
            "stopped": lambda: _between(server.stop, server.start),
            "paused": lambda: _between(server.freeze, server.thaw),
            "disk full": lambda: _full_of_log(server, disk),
            "memory full": lambda: _between(full, lambda: configure("maxmemory", 0)),
            "failing over": lambda: _between(
                lambda: server.ask("REPLICAOF", "127.0.0.1", 1),
                lambda: server.ask("REPLICAOF", "NO", "ONE"),
            ),
        }
        yield _cutting(place, cutter)


@contextlib.contextmanager
def _full_of_log(server: RedisServer, disk: SmallDisk) -> Iterator[None]:
    log = max(disk.folder.glob("appendonlydir/*.incr.aof"))
    disk.fill([server.pid], log.stat().st_size)
    # With `appendfsync everysec` the server has answered for the first write that it cannot keep; it
    # holds on to that, and takes no others.
    server.ask("SET", "filler", "x" * 5000)
    until(
        lambda: server.ask("INFO", "persistence")["aof_last_write_status"] != "ok",
        "a log that cannot be written",
    )
    try:
        yield
    finally:
        disk.free()
        until(
            lambda: server.ask("INFO", "persistence")["aof_last_write_status"] == "ok",
            "a log that can be written again",
        )
        server.ask("DEL", "filler")


# -- PostgreSQL


@contextlib.contextmanager
def postgres(pg: Postgres, schema: str) -> Iterator[Place]:
    """A schema of one test."""
    with ExitStack() as stack:
        cutter = stack.enter_context(contextlib.closing(Cutter(pg.port, to_postgres)))
        options = f"schema={schema}&{PATIENCE}&connect_timeout=2&gssencmode=disable&sslmode=disable"
        url = pg.url(options)
        place = Place(url, _by_way_of(cutter, url), lose=lambda: _emptied(pg, schema))
        place.begin = {
            "stopped": lambda: _between(pg.stop, pg.start),
            "paused": pg.frozen,
            "disk full": lambda: _full_of_table(pg, schema),
            "locked": lambda: locked_table(pg, schema),
            "failing over": lambda: _between(
                lambda: _read_only(pg, "on"), lambda: _read_only(pg, "off")
            ),
            "table gone": lambda: _between(
                lambda: pg.admin(f"ALTER TABLE {schema}.oauthgate RENAME TO elsewhere"),
                lambda: pg.admin(f"ALTER TABLE {schema}.elsewhere RENAME TO oauthgate"),
            ),
        }
        yield _cutting(place, cutter)


def locked_table(pg: Postgres, schema: str) -> AbstractContextManager[None]:
    """Another session holds the table for itself."""
    return pg.locking(f"LOCK TABLE {schema}.oauthgate IN ACCESS EXCLUSIVE MODE")


def _emptied(pg: Postgres, schema: str) -> None:
    pg.stop()
    pg.start()
    pg.admin(f"TRUNCATE {schema}.oauthgate")


def _read_only(pg: Postgres, setting: str) -> None:
    """As a standby: whoever is connected is thrown out, and nobody may write."""
    if setting == "on":
        pg.admin("ALTER SYSTEM SET default_transaction_read_only = on", "postgres")
    else:
        pg.admin("SET default_transaction_read_only = off; ALTER SYSTEM RESET ALL", "postgres")
    pg.admin("SELECT pg_reload_conf()")
    until(lambda: pg.admin("SHOW default_transaction_read_only") == setting, "the new configuration")
    for pid in pg.connections():
        pg.admin(f"SELECT pg_terminate_backend({pid}, 5000)")


@contextlib.contextmanager
def _full_of_table(pg: Postgres, schema: str) -> Iterator[None]:
    with small_disk(pg.folder / f"small-{schema}", pg.owner) as disk:
        table = f"{schema}.oauthgate"
        # Written anew, so that no page has room that the death of an old row has left, or for new ones.
        pg.admin(f"ALTER TABLE {table} SET (fillfactor = 100)")
        pg.admin(f"VACUUM FULL {table}")
        if disk.mounted:
            pg.admin(f"CREATE TABLESPACE {schema} LOCATION '{disk.folder}'")
            pg.admin(f"ALTER TABLE {table} SET TABLESPACE {schema}")
        # A limit that cuts the table's second page in half, for who serves clients, and for no others.
        disk.fill([pg.pid(), *pg.connections()], 8192 + 4096, as_owner=pg.run)
        # What room the table's own pages have left is used up by rows that are smaller than any of ours.
        pg.admin(
            "DO $$ BEGIN FOR number IN 1..2000 LOOP BEGIN "
            f"INSERT INTO {table} (key, value, version) VALUES (('z' || number)::bytea, '', 1); "
            "EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$"
        )
        try:
            yield
        finally:
            disk.free()
            pg.admin(f"DELETE FROM {table} WHERE key LIKE 'z%'")
            if disk.mounted:
                pg.admin(f"ALTER TABLE {table} SET TABLESPACE pg_default")
                pg.admin(f"DROP TABLESPACE {schema}")


# -- DynamoDB


@contextlib.contextmanager
def dynamodb(server: DynamoDB, table: str) -> Iterator[Place]:
    """A table of one test."""
    with contextlib.closing(Front(server)) as front:
        url = dynamodb_places.address(front.endpoint, table, f"&{PATIENCE}")
        create(url)

        def lose() -> None:
            server.stop()
            server.start()
            create(url)

        def cut(spare: int, moment: str) -> None:
            front.faults.extend([None] * spare)
            front.faults.append("lost" if moment == "requests" else "cut")

        def uncut() -> bool:
            left = bool(front.faults)
            front.faults.clear()
            return left

        def lead(port: int) -> None:
            front.target = port

        place = Place(url, url, lose=lose, cut=cut, uncut=uncut)
        place.begin = {
            "unreachable": lambda: _between(lambda: lead(free_port()), lambda: lead(server.port)),
            "paused": lambda: _between(server.freeze, server.thaw),
            "throttled": lambda: _between(
                lambda: front.faults.extend(["ThrottlingException"] * 1000), front.faults.clear
            ),
            "table gone": lambda: _between(
                lambda: front.faults.extend(["ResourceNotFoundException"] * 1000), front.faults.clear
            ),
        }
        yield place
