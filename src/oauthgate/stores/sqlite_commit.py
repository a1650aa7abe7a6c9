"""Commits to SQLite: statements that belong together, and several such groups at once.

A group that comes to nothing, because another writer was faster, undoes nothing but itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

from .sqlite_statements import Row, Statement

#: Statements that are done all or not at all: each must answer with a row.
Together: TypeAlias = "Sequence[Statement]"
#: What each statement answered; None when they were not done because one of them answered with no row.
Answers: TypeAlias = "list[list[Row]] | None"


def commit(connection: sqlite3.Connection, work: Sequence[Together]) -> list[Answers]:
    """Do all of `work` in one commit. Raises `sqlite3.Error`, and then nothing of it was done."""
    if len(work) == 1 and len(work[0]) == 1:
        return [[connection.execute(*work[0][0]).fetchall()]]
    # Taken at once: a transaction that begins by reading could not become a writing one later.
    connection.execute("BEGIN IMMEDIATE")
    try:
        answers = [_do(connection, together) for together in work]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers


def _do(connection: sqlite3.Connection, together: Together) -> Answers:
    if len(together) == 1:
        return [connection.execute(*together[0]).fetchall()]
    answers: list[list[Row]] = []
    connection.execute("SAVEPOINT together")
    for statement in together:
        rows = connection.execute(*statement).fetchall()
        if not rows:
            connection.execute("ROLLBACK TO together")
            connection.execute("RELEASE together")
            return None
        answers.append(rows)
    connection.execute("RELEASE together")
    return answers


def is_busy(error: Exception) -> bool:
    """Whether another connection holds the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
