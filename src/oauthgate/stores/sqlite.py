"""The default store: one SQLite file, shared by all threads and processes of one machine.

WAL lets readers go on while one writer writes; `synchronous=FULL` makes a returned write durable
(https://sqlite.org/wal.html). A point read is a few microseconds of page cache and is done in place,
also under ASGI; a write waits for the disk and goes to aiosqlite's thread there.

Connections are opened on first use and kept per process id (a connection must not cross a fork:
https://sqlite.org/howtocorrupt.html section 2.6), and the writer under ASGI per event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import stat
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..errors import ConfigError, StoreError
from ..loop_end import at_loop_end
from . import sqlite_statements as statements
from .base import ANY, Expect, Record, Write
from .sqlite_commit import Answers, Together, commit, is_busy
from .sqlite_statements import Row, Statement
from .wal_index import WalIndex, wal_index

if TYPE_CHECKING:
    from .sqlite_writer import Writer

#: Milliseconds that a writer waits for another one before the store counts as unavailable.
BUSY_TIMEOUT = 5_000
#: KiB of pages that a connection keeps at most. SQLite's 2,000 are too few for the pages of some hundred
#: visitors in a large file: each read would ask the system again, and cost half as much more.
CACHE = 8192
#: Seconds: what expires within them is not worth a wait for the disk. It outlives the process all the
#: same; a power failure may lose the last ones, together with whoever counted on them.
FLEETING = 3600.0
#: Fleeting writes of one process between two that go with the others; those move the WAL into the file.
CHECKPOINT_EVERY = 256


class SQLiteStore:
    """`sqlite:///relative.db` or `sqlite:////absolute/path.db`."""

    colour = "both"

    def __init__(self, url: str, *, blocking: bool = False) -> None:
        scheme, _, rest = url.partition(":")
        if not rest.startswith("///") or len(rest) < 4:
            raise ConfigError(
                f"[oauthgate] store: found {url!r}, expected sqlite:///relative.db or "
                f"{scheme}:////absolute/path.db"
            )
        # Made absolute at once: a server that changes its directory must not change its database.
        self.path = Path(unquote(rest[3:])).absolute()
        self.blocking = blocking
        self.clock: Callable[[], float] = time.time
        self._pid = 0
        self._owner = [0]
        self._idle: list[sqlite3.Connection] = []
        self._index: WalIndex | None = None
        self._index_sought = False
        self._fleeting = 0
        self._writers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[Writer]] = (
            weakref.WeakKeyDictionary()
        )
        self._ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = (
            weakref.WeakKeyDictionary()
        )

        weakref.finalize(self, _close_idle, self._idle, self._owner)
        _instances.add(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    async def open(self) -> None:
        with self._connection():
            pass

    async def close(self) -> None:
        if not self.blocking and self._pid == os.getpid():
            await self._close_writer()
        self._forget_index()
        _close_idle(self._idle, self._owner)

    def stamp(self, key: str) -> bytes | None:
        """See `base.Stamped`: of all records."""
        index = self._index
        try:
            return index.stamp() if index is not None else None
        except ValueError:  # closed in another thread
            return None

    def _forget_index(self) -> None:
        # Without an open connection the file may be deleted and made anew, and the map would show the
        # old one for ever.
        self._index = None
        self._index_sought = False

    async def get(self, key: str) -> Record | None:
        # `_connection` without its context managers: this read is made for every signed-in request.
        if self._pid != os.getpid():
            self._check_process()
        try:
            connection = self._idle.pop()
        except IndexError:
            with self._errors():
                connection = self._connect()
        try:
            row = connection.execute(statements.GET, (key,)).fetchone()
        except sqlite3.Error as error:
            self._forget_index()
            connection.close()
            if self.blocking or not is_busy(error):
                raise self._fault(error) from None
            # Somebody holds the file for himself; waiting for that is for aiosqlite's thread.
            with self._errors():
                rows = await (await self._writer()).read(Statement(statements.GET, (key,)))
            row = rows[0] if rows else None
        else:
            self._idle.append(connection)
            if not self._index_sought:
                self._index_sought = True
                # In another journal mode a -shm file is one that was left behind.
                if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                    self._index = wal_index(self.path)
        if row is None or (row[2] is not None and row[2] <= self.clock()):
            return None
        return Record(*row)

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        now = self.clock()
        statement = statements.put(key, value, expires_at, expect, now)
        fleeting = expires_at is not None and expires_at - now <= FLEETING
        rows = await (self._write_in_place(statement) if fleeting else self._write(statement))
        return statements.new_version(key, expect, rows)

    async def put_all(self, writes: Sequence[Write]) -> list[int]:
        """See `base.Batching`: one transaction."""
        now = self.clock()
        answers = await self._commit(
            [
                statements.put(write.key, write.value, write.expires_at, write.expect, now)
                for write in writes
            ]
        )
        if answers is None:
            raise statements.conflict(writes[0].key, writes[0].expect)
        return [
            statements.new_version(write.key, write.expect, rows)
            for write, rows in zip(writes, answers, strict=True)
        ]

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        now = self.clock()
        rows = await self._write(statements.delete(key, expect, now))
        if isinstance(expect, int):
            if not rows:
                raise statements.conflict(key, expect)
            return True
        return bool(rows) and (rows[0][1] is None or float(str(rows[0][1])) > now)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        # Page by page: a read transaction held open over user code would stop the WAL's checkpoint.
        start, last, end = prefix, None, statements.after(prefix)
        while True:
            with self._connection() as connection:
                rows = connection.execute(statements.SCAN, (start, end, last, self.clock())).fetchall()
            for key, value, version, expires_at in rows:
                yield key, Record(value, version, expires_at)
            if not rows:
                return
            start = last = rows[-1][0]

    async def purge(self, now: float) -> int:
        total = 0
        while True:
            rows = await self._write(statements.purge(now))
            total += len(rows)
            if len(rows) < statements.PURGE_BATCH:
                return total

    # -- connections

    async def _write(self, statement: Statement) -> list[Row]:
        """Write and wait for the disk; the rows that the statement answers with."""
        answers = await self._commit([statement])
        return answers[0] if answers else []

    async def _commit(self, together: Together) -> Answers:
        if not self.blocking:
            with self._errors():
                return await (await self._writer()).write(together)
        with self._connection() as connection:
            return commit(connection, [together])[0]

    async def _write_in_place(self, statement: Statement) -> list[Row]:
        """Write without a wait for the disk, and so without a hop to another thread."""
        self._fleeting += 1
        if self._fleeting % CHECKPOINT_EVERY == 0:
            return await self._write(statement)
        with self._connection() as connection:
            if self.blocking:
                connection.execute("PRAGMA synchronous=NORMAL")
            try:
                return connection.execute(*statement).fetchall()
            except sqlite3.OperationalError as error:
                if self.blocking or not is_busy(error):
                    raise
            finally:
                if self.blocking:
                    connection.execute("PRAGMA synchronous=FULL")
        # Another writer is at it; waiting for that is for aiosqlite's thread.
        return await self._write(statement)

    async def _writer(self) -> Writer:
        """This event loop's writer. Two first writes share one connecting task."""
        loop = asyncio.get_running_loop()
        self._check_process()
        task = self._writers.get(loop)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            from .sqlite_writer import Writer  # only where there is an event loop

            with self._connection():
                pass  # makes file and schema, in place, once
            task = loop.create_task(Writer.open(self.path, BUSY_TIMEOUT))
            self._writers[loop] = task
            self._ends[loop] = at_loop_end(self._close_writer)
        return await asyncio.shield(task)

    async def _close_writer(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends.pop(loop, None)
        writer = self._writers.pop(loop, None)
        if writer is not None:
            with contextlib.suppress(sqlite3.Error):
                await (await writer).close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else is using; taken and given back, so threads never share one.

        A list's `pop` and `append` are atomic, also under gevent, and statements here never yield.
        """
        with self._errors():
            self._check_process()
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            except BaseException:
                self._forget_index()
                connection.close()
                raise
            self._idle.append(connection)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            # After a fork the parent's connections are neither used nor closed here: closing one
            # would drop the parent's locks on the file. They are kept so that nothing collects them.
            if self._pid:
                _INHERITED.append((list(self._idle), self._writers))
            self._idle.clear()
            self._forget_index()
            self._writers = weakref.WeakKeyDictionary()
            self._pid = self._owner[0] = os.getpid()

    def _connect(self) -> sqlite3.Connection:
        created = _prepare_file(self.path)
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=32,
        )
        until = time.monotonic() + BUSY_TIMEOUT / 1000
        try:
            while True:
                try:
                    self._set_up(connection, created)
                    break
                except sqlite3.Error as error:
                    # Where waiting could be a deadlock (several processes that switch a new file to
                    # WAL at once) SQLite does not wait by itself.
                    if not is_busy(error) or time.monotonic() > until:
                        raise
                    if connection.in_transaction:
                        connection.rollback()
                    time.sleep(0.005 + secrets.randbelow(20) / 1000)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection, created: bool) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > statements.SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer oauthgate (schema {version}, this one knows "
                f"{statements.SCHEMA_VERSION}): upgrade oauthgate"
            )
        if version < statements.SCHEMA_VERSION or created:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.executescript(
                f"BEGIN IMMEDIATE; {statements.SCHEMA} "
                f"PRAGMA user_version={statements.SCHEMA_VERSION}; COMMIT;"
            )
        connection.execute(f"PRAGMA cache_size=-{CACHE}")
        if self.blocking:
            connection.execute("PRAGMA synchronous=FULL")
        else:
            # This one is used on the event loop, which must wait neither for a lock nor for the disk.
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0").fetchone()

    def _fault(self, error: sqlite3.Error) -> StoreError:
        reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
        return StoreError(f"SQLite file {self.path}: {reason}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._fault(error) from None
        except OSError as error:
            raise StoreError(f"SQLite file {self.path}: {error.strerror}") from None


_INHERITED: list[object] = []
_instances: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_instances):
        store._forget_index()


os.register_at_fork(after_in_child=_after_fork)


def _close_idle(idle: list[sqlite3.Connection], owner: list[int]) -> None:
    while idle and owner[0] == os.getpid():
        idle.pop().close()


def _prepare_file(path: Path) -> bool:
    """Create the file with mode 0600 before SQLite would create it with the umask's; true when new.

    SQLite gives its `-wal` and `-shm` files the mode of the database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        return False
    return True
