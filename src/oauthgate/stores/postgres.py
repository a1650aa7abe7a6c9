"""Records in one table of a PostgreSQL database, for sites of several machines.

Owns: what each operation of a store is here, and when it may be tried again. Each is one statement in a
transaction of its own, so it is one round trip, and it holds nothing when it is over.

Connections are opened on first use and kept by process id, and under ASGI by event loop.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence

from ..errors import ConfigError, Conflict, StoreError
from ..loop_end import at_loop_end
from .base import ABSENT, ANY, Expect, Record, Write
from .recheck import Carried, Question, Recheck, rechecking
from .watch import Watches, weakly

try:
    from .postgres_faults import READ_ONLY, TRANSIENT, Lost, Refused
    from .postgres_link import BYTEA, AsyncLink, BlockingLink, Row, Statement
    from .postgres_pool import Pool
    from .postgres_schema import prepare, table_in
    from .postgres_statements import NOT_ALL, PURGE_BATCH, SCAN_PAGE, Kind, Statements
    from .postgres_url import read_url
except ImportError:
    raise ConfigError(
        '[oauthgate] store: PostgreSQL needs psycopg; install it with: pip install "oauthgate[postgres]"'
    ) from None

#: How often a statement that the server undid because of another one is sent in all.
ATTEMPTS = 5


class PostgresStore:
    """`postgresql://user:password@host/database?schema=name`; see docs/stores.md for the options."""

    colour = "both"

    def __init__(self, url: str, *, blocking: bool = False) -> None:
        self.place = read_url(url)
        self.blocking = blocking
        self.clock: Callable[[], float] = time.time
        self._sql = Statements(table_in(self.place.schema))
        self._pid = 0
        self._forget_connections()
        self._carried = Carried()
        self._watches = Watches(
            Recheck, rechecking(weakly(self._versions)), f"PostgreSQL at {self.place}"
        )

    def _forget_connections(self) -> None:
        self._prepared = False
        self._pool: Pool | None = None
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = (
            weakref.WeakKeyDictionary()
        )
        self._ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"PostgresStore({str(self.place)!r}, schema={self.place.schema!r})"

    async def open(self) -> None:
        await self._prepare()

    async def close(self) -> None:
        if self._pid != os.getpid():
            return
        if not self.blocking:
            await self._watches.close()
            await self._close_loop()
        elif self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    def watch(self, within: float) -> None:
        """See `base.Watching`."""
        (self._carried if self.blocking else self._watches).start(within)

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`."""
        return (self._carried if self.blocking else self._watches).stamp(key)

    async def _versions(self, keys: Sequence[str]) -> dict[str, int]:
        rows = await self._run(
            self._sql.versions, _array([_bytes(key) for key in keys]), _float(self.clock()), reads=True
        )
        return {_text(key): _to_int(version) for key, version in rows}

    async def get(self, key: str) -> Record | None:
        question = self._carried.question() if self.blocking else None
        if question is None:
            rows = await self._run(self._sql.get, _bytes(key), reads=True)
        else:
            rows = await self._get_and_ask(key, question)
        if not rows:
            return None
        record = _record(rows[0])
        if record.expires_at is not None and record.expires_at <= self.clock():
            return None
        return record

    async def _get_and_ask(self, key: str, question: Question) -> list[Row]:
        keys = _array([_bytes(each) for each in question.keys])
        rows = await self._run(
            self._sql.get_and_versions, _bytes(key), keys, _float(self.clock()), reads=True
        )
        versions = {_text(row[3]): _to_int(row[1]) for row in rows if row[3] is not None}
        question.recheck.found(question.asked, question.keys, versions)
        return [row for row in rows if row[3] is None]

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        kind, values = self._spelt(Write(key, value, expires_at, expect))
        rows = await self._run(self._sql.put[kind], *values)
        if not rows:
            raise _conflict(key, expect)
        return _to_int(rows[0][0])

    async def put_all(self, writes: Sequence[Write]) -> list[int]:
        """See `base.Batching`: one statement, and one round trip."""
        # In one order for everybody: else two could each wait for a row that the other one has changed,
        # until the server notices, a second later.
        order = sorted(range(len(writes)), key=lambda number: writes[number].key)
        spelt = [self._spelt(writes[number]) for number in order]
        statement = self._sql.put_all([kind for kind, _ in spelt])
        try:
            rows = await self._run(statement, *(value for _, values in spelt for value in values))
        except Refused as error:
            if error.sqlstate == NOT_ALL:
                raise _conflict(writes[0].key, writes[0].expect) from None
            raise
        versions = {number: _to_int(rows[0][place]) for place, number in enumerate(order)}
        return [versions[number] for number in range(len(writes))]

    def _spelt(self, write: Write) -> tuple[Kind, tuple[bytes | None, ...]]:
        """Which statement a write is, and its values."""
        key, value, expires_at, expect = write
        written = (_bytes(key), value, None if expires_at is None else _float(expires_at))
        now = _float(self.clock())
        if isinstance(expect, int):
            if not -(2**63) <= expect < 2**63:
                raise _conflict(key, expect)  # no version of ours, and no bigint
            return "version", (*written, _int(expect), now)
        return ("absent" if expect is ABSENT else "any"), (*written, _fresh(), now)

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        now = self.clock()
        if isinstance(expect, int):
            if not -(2**63) <= expect < 2**63 or not await self._run(
                self._sql.delete_version, _bytes(key), _int(expect), _float(now)
            ):
                raise _conflict(key, expect)
            return True
        rows = await self._run(self._sql.delete, _bytes(key))
        if not rows:
            return False
        expires_at = rows[0][0]
        return expires_at is None or _to_float(expires_at) > now

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        # Page by page, each a statement of its own: a snapshot held open over user code would keep
        # the server from removing dead rows, and a pooler from using the connection.
        start, end = _bytes(prefix), _after(_bytes(prefix))
        while True:
            rows = await self._run(
                self._sql.scan, start, end, _float(self.clock()), _int(SCAN_PAGE), reads=True
            )
            for row in rows:
                yield _text(row[3]), _record(row)
            if len(rows) < SCAN_PAGE:
                return
            start = (rows[-1][3] or b"") + b"\0"  # what sorts right after it

    async def purge(self, now: float) -> int:
        total = 0
        while True:
            dropped = len(await self._run(self._sql.purge, _float(now), _int(PURGE_BATCH)))
            total += dropped
            if dropped < PURGE_BATCH:
                return total

    # -- connections

    async def _run(self, statement: Statement, *values: bytes | None, reads: bool = False) -> list[Row]:
        """Have a statement done. What only reads is sent once more where the connection broke."""
        if self._pid != os.getpid():
            self._change_process()
        if not self._prepared:
            await self._prepare()
        pool = self._links()
        deadline = time.monotonic() + self.place.timeout
        attempt = 0
        while True:
            attempt += 1
            link = await pool.take(deadline)
            try:
                rows = await link.run(statement, values, deadline)
            except Refused as error:
                if error.sqlstate == READ_ONLY:
                    # The primary is elsewhere now: connect anew, which looks for it.
                    pool.drop(link)
                    pool.close_idle()
                    raise
                pool.give(link)
                if error.sqlstate not in TRANSIENT or attempt == ATTEMPTS:
                    raise
            except Lost:
                pool.drop(link)
                # A server that restarted has ended them all.
                pool.close_idle()
                # A write may have been done although its answer is lost: sent again with the version
                # that it expected, it would be refused as somebody else's.
                if not reads or attempt > 1:
                    raise
            except BaseException:
                pool.drop(link)
                raise
            else:
                pool.give(link)
                return rows

    async def _prepare(self) -> None:
        """Make or check the table, once for each process."""
        if self._pid != os.getpid():
            self._change_process()
        pool = self._links()
        deadline = time.monotonic() + self.place.timeout
        link = await pool.take(deadline)

        async def run(statement: Statement, *values: bytes) -> list[Row]:
            return await link.run(statement, values, deadline)

        try:
            await prepare(run, self.place.schema, str(self.place))
        except BaseException:
            pool.drop(link)  # and with it the transaction that it may be in
            raise
        pool.give(link)
        self._prepared = True

    def _links(self) -> Pool:
        if self.blocking:
            if self._pool is None:
                self._pool = Pool(BlockingLink, self.place)
            return self._pool
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = Pool(AsyncLink, self.place)
            self._ends[loop] = at_loop_end(self._close_loop)
        return pool

    async def _close_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends.pop(loop, None)
        pool = self._pools.pop(loop, None)
        if pool is not None:
            await pool.close()

    def _change_process(self) -> None:
        # After a fork the parent's connections are neither used nor closed here: both would be said
        # to the server in the parent's name. They are kept so that nothing collects them.
        if self._pid:
            _INHERITED.append((self._pool, self._pools, self._ends))
            self._forget_connections()
        self._pid = os.getpid()


_INHERITED: list[object] = []


def _conflict(key: str, expect: Expect) -> Conflict:
    # A key may hold a hash that names a person: errors speak of the kind of record only.
    return Conflict(f"the record {key.partition('/')[0]}/… is not as the writer expected ({expect!r})")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "surrogatepass")


def _after(prefix: bytes) -> bytes:
    """What sorts after every key that starts with `prefix`. UTF-8 has no byte 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b"\xff"


def _record(row: Row) -> Record:
    value, version, expires_at = row[:3]
    return Record(value or b"", _to_int(version), None if expires_at is None else _to_float(expires_at))


def _fresh() -> bytes:
    return _int(secrets.randbits(52))


def _array(values: list[bytes]) -> bytes:
    """A bytea[] in binary form: one dimension, no NULL, counted from 1."""
    parts = [struct.pack(">iiIii", 1, 0, BYTEA, len(values), 1)]
    for value in values:
        parts += (struct.pack(">i", len(value)), value)
    return b"".join(parts)


def _int(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def _float(number: float) -> bytes:
    return struct.pack(">d", number)


def _to_int(raw: bytes | None) -> int:
    return int.from_bytes(_eight(raw), "big", signed=True)


def _to_float(raw: bytes) -> float:
    (number,) = struct.unpack(">d", _eight(raw))
    return float(number)


def _eight(raw: bytes | None) -> bytes:
    if raw is None or len(raw) != 8:
        raise StoreError("PostgreSQL: the table oauthgate has other types of columns than ours")
    return raw
