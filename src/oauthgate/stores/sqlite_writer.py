"""Writes to SQLite under ASGI: on aiosqlite's thread, and together where they come together.

A commit costs a wait for the disk, whatever is in it. So the writes that come while one commit is under
way go into the next one; each is answered after the commit that it was part of.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from .sqlite_commit import Answers, Together, commit, is_busy
from .sqlite_statements import Row, Statement

#: Transactions in one commit: others wait for the file meanwhile.
MAX_COMMIT = 64
#: Something for the connection to do that needs no file.
_TURN = Statement("SELECT 1", ())


class _Connection(aiosqlite.Connection):
    """aiosqlite's, with a whole commit as one call of its thread instead of one for each statement."""

    async def commit_together(self, work: Sequence[Together]) -> list[Answers]:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the connection is closed")
        # aiosqlite has its own call for each of sqlite3's methods, and this untyped one for all else.
        answers: list[Answers] = await self._execute(commit, self._connection, work)  # type: ignore[no-untyped-call]
        return answers


class Writer:
    """The connection of one event loop, on aiosqlite's thread."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Together, asyncio.Future[Answers]]] = []
        self._busy = False
        self._next: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, busy_timeout: int) -> Writer:
        """Waits `busy_timeout` milliseconds at most for other processes. Raises `sqlite3.Error`."""
        connection = _Connection(lambda: sqlite3.connect(str(path), isolation_level=None), 64)
        # A process must be able to end although a loop was dropped without closing its store.
        connection._thread.daemon = True
        await connection
        await connection.execute_fetchall(f"PRAGMA busy_timeout={busy_timeout}")
        await connection.execute_fetchall("PRAGMA synchronous=FULL")
        return cls(connection)

    async def read(self, statement: Statement) -> list[Row]:
        return [tuple(row) for row in await self._connection.execute_fetchall(*statement)]

    async def write(self, together: Together) -> Answers:
        """Returns once the disk has it. Raises `sqlite3.Error`."""
        if self._busy:
            answer: asyncio.Future[Answers] = self._loop.create_future()
            self._waiting.append((together, answer))
            return await answer
        self._busy = True
        try:
            return (await self._connection.commit_together([together]))[0]
        finally:
            self._go_on()

    def _go_on(self) -> None:
        if self._loop.is_closed():
            return  # it was dropped, and nobody waits: a write that ends now is one that is collected
        self._busy = bool(self._waiting)
        if self._waiting:
            # In a task of its own: whoever waited for the first commit need not wait for the next.
            self._next = self._loop.create_task(self._commit_waiting())
            # Not at its end: of a task that is cancelled before it began nothing is run.
            self._next.add_done_callback(lambda _: self._go_on())

    async def _commit_waiting(self) -> None:
        batch, self._waiting = self._waiting[:MAX_COMMIT], self._waiting[MAX_COMMIT:]
        try:
            answers = await self._connection.commit_together([work for work, _ in batch])
        except Exception as error:  # whatever it is, whoever waits gets it
            if len(batch) == 1 or is_busy(error):
                for _, future in batch:
                    _settle(future, error)
            else:
                # One of them was too much for the disk, or for SQLite: only that one is to fail.
                for work, future in batch:
                    await self._commit_alone(work, future)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                _settle(future, answer)
        finally:
            for _, future in batch:
                # Only where this task was cancelled: whoever waits was not, and would wait for ever.
                _settle(future, sqlite3.OperationalError("the commit was given up"))

    async def _commit_alone(self, work: Together, future: asyncio.Future[Answers]) -> None:
        try:
            _settle(future, (await self._connection.commit_together([work]))[0])
        except Exception as error:  # whatever it is, whoever waits gets it
            _settle(future, error)

    async def close(self) -> None:
        """Let go of the file; what waits is written first."""
        with contextlib.suppress(sqlite3.Error, ValueError):  # aiosqlite's for one that is closed
            while self._busy:
                await self.read(_TURN)  # done after the commit that is under way
        with contextlib.suppress(sqlite3.Error):
            await self._connection.close()


def _settle(future: asyncio.Future[Answers], answer: Answers | Exception) -> None:
    if future.done():
        return  # its caller has gone
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
