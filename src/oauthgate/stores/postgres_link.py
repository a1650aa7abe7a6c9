"""One connection to PostgreSQL, over which one statement at a time is sent and its rows are read.

Owns: connecting, the exchange of a statement and its answer, its deadline, and the end. psycopg makes
the connection; statements go through libpq's asynchronous calls (`psycopg.pq`,
https://www.postgresql.org/docs/current/libpq-async.html), because that is one exchange for both colours:
only how one waits for the socket differs. It is half of the time of a psycopg cursor, and a wait always
has an end: a server that is stopped keeps the socket open, which no timeout of libpq or TCP notices.

Statements have no name and no transaction around them: one round trip, and nothing that a pooler such
as PgBouncer would have to keep for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import psycopg
from psycopg import capabilities
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from ..errors import StoreError
from . import postgres_faults as faults
from .postgres_url import Place

Row = tuple[bytes | None, ...]

BYTEA, INT8, TEXT, FLOAT8, BYTEAS = 17, 20, 25, 701, 1001
#: Seconds for the request to cancel a statement that is overdue.
CANCEL_TIMEOUT = 1.0
#: How often a connection is begun that ends before the server has said anything (see `_hung_up`).
CONNECTS = 3


class Statement:
    """Text with `$1`, `$2`, … and the types (OIDs) of these; parameters and rows are in binary form.

    `{name}` in it stands for a name that is quoted already.
    """

    __slots__ = ("formats", "text", "types")

    def __init__(self, text: str, *types: int, name: str = "") -> None:
        self.text = text.replace("{name}", name).encode()
        self.types = types
        self.formats = [1] * len(types)


class Link:
    """A connection; used by one thread or task at a time. `parked` is when it was last given back."""

    def __init__(self, place: Place, connection: psycopg.Connection | psycopg.AsyncConnection) -> None:
        self.place = place
        self.connection = connection
        self.pgconn = connection.pgconn
        self.fd = self.pgconn.socket
        self.born = self.parked = time.monotonic()
        self._reads = select.poll()
        self._reads.register(self.fd, select.POLLIN)

    def usable(self) -> bool:
        """Whether an idle connection is still good, as far as this side knows; asks nobody.

        A server that ended it has said so: there is something to read where nothing was asked. A
        write then goes to a new connection, instead of into the doubt whether it was applied.
        """
        return self.pgconn.status == ConnStatus.OK and not self._reads.poll(0)

    def close(self) -> None:
        """End the connection, whatever state it is in."""
        self.pgconn.finish()

    async def run(
        self, statement: Statement, values: Sequence[bytes | None], deadline: float
    ) -> list[Row]:
        """Send a statement and return its rows. `deadline` is of `time.monotonic`.

        Raises `Refused` (the connection is good), or another `StoreError` (it is to be closed).
        """
        pgconn = self.pgconn
        result = None
        try:
            pgconn.send_query_params(
                statement.text, values, statement.types, statement.formats, result_format=1
            )
            while pgconn.flush():
                # A server that is sending does not read: what it says is taken, or both would wait.
                if await self._wait(deadline, write=True):
                    pgconn.consume_input()
            # The last result counts: the commit comes after the rows, and may fail.
            while True:
                while pgconn.is_busy():
                    await self._wait(deadline)
                    pgconn.consume_input()
                following = pgconn.get_result()
                if following is None:
                    break
                result = following
        except psycopg.Error:
            # libpq's text is not shown: it may quote the server's.
            raise faults.lost(self.place, _sqlstate(result)) from None
        if result is not None and result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            columns = range(result.nfields)
            return [
                tuple(result.get_value(row, column) for column in columns)
                for row in range(result.ntuples)
            ]
        self._fail(result)

    def _fail(self, result: Any) -> NoReturn:  # noqa: ANN401 - psycopg's result, in C or Python
        code = _sqlstate(result)
        if self.pgconn.status != ConnStatus.OK or not code:
            raise faults.lost(self.place, code)
        raise faults.refused(self.place, code)

    async def _wait(self, deadline: float, *, write: bool = False) -> bool:
        """Wait for the socket; true when there is something to read. Raises `StoreError` if overdue."""
        raise NotImplementedError  # each colour has its own, below


class BlockingLink(Link):
    """Waits on the calling thread (under gevent: the greenlet, whose `select.poll` is patched)."""

    connection: psycopg.Connection

    @classmethod
    async def connect(cls, place: Place) -> BlockingLink:
        """Raises `StoreError`."""
        for again in reversed(range(CONNECTS)):
            try:
                return cls(place, psycopg.Connection.connect(autocommit=True, **place.parameters))
            except (psycopg.Error, OSError, UnicodeError) as error:
                if again and _hung_up(error):
                    continue
                failure = _not_connected(place, error)
                break
        raise failure

    async def _wait(self, deadline: float, *, write: bool = False) -> bool:
        poll = self._reads
        if write:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN | select.POLLOUT)
        left = deadline - time.monotonic()
        events = poll.poll(left * 1000) if left > 0 else []
        if not events:
            if capabilities.has_cancel_safe():
                with contextlib.suppress(psycopg.Error, OSError):
                    self.connection.cancel_safe(timeout=CANCEL_TIMEOUT)
            raise faults.overdue(self.place)
        return bool(events[0][1] & ~select.POLLOUT)


class AsyncLink(Link):
    """Waits on the running event loop."""

    connection: psycopg.AsyncConnection

    @classmethod
    async def connect(cls, place: Place) -> AsyncLink:
        """Raises `StoreError`."""
        for again in reversed(range(CONNECTS)):
            try:
                made = await psycopg.AsyncConnection.connect(autocommit=True, **place.parameters)
                return cls(place, made)
            except (psycopg.Error, OSError, UnicodeError) as error:
                if again and _hung_up(error):
                    continue
                failure = _not_connected(place, error)
                break
        raise failure

    async def _wait(self, deadline: float, *, write: bool = False) -> bool:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[int] = loop.create_future()
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), _wake, woken, 0)
        loop.add_reader(self.fd, _wake, woken, select.POLLIN)
        if write:
            loop.add_writer(self.fd, _wake, woken, select.POLLOUT)
        try:
            event = await woken
        finally:
            timer.cancel()
            loop.remove_reader(self.fd)
            if write:
                loop.remove_writer(self.fd)
        if not event:
            if capabilities.has_cancel_safe():
                with contextlib.suppress(psycopg.Error, OSError):
                    await self.connection.cancel_safe(timeout=CANCEL_TIMEOUT)
            raise faults.overdue(self.place)
        return event == select.POLLIN


def _hung_up(error: BaseException) -> bool:
    """Whether libpq believes that a server took the connection and ended it without a word.

    psycopg polls a connection before its socket is connected, and libpq then takes it for connected. So
    on a busy machine a connection that was refused reads like this; asked again, it says why. A server
    that is just restarting does hang up, too. Nothing was sent yet but a greeting.
    """
    return " failed: server closed the connection unexpectedly" in str(error)


def _not_connected(place: Place, error: BaseException) -> StoreError:
    # psycopg's frames hold the socket of what did not become a connection, and the error holds them: a
    # server that hangs would be left with one for each attempt, until they are collected.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return faults.not_connected(place, error)


def _sqlstate(result: Any) -> str:  # noqa: ANN401 - psycopg's result, in C or Python
    """The code of an error, or nothing."""
    code = result.error_field(DiagnosticField.SQLSTATE) if result is not None else None
    return code.decode("ascii", "replace") if code else ""


def _wake(woken: asyncio.Future[int], event: int) -> None:
    if not woken.done():
        woken.set_result(event)
