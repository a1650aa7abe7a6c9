"""What is sent to PostgreSQL, for one table.

Each statement decides and writes in one step, so that the server's own rules for a single statement are
all the atomicity that is needed: of two writers of one row, the second waits for the first and then
looks again at the condition (https://www.postgresql.org/docs/current/transaction-iso.html, 13.2.1).

An expired row counts as absent, by the clock of who asks, as in every store. A row that is taken over
goes on counting its versions; a new one begins with a random number that the caller gives, so that a
version does not come back after a delete either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from .postgres_link import BYTEA, BYTEAS, FLOAT8, INT8, Statement

#: What a write expects: anything, nothing that is live, or a version.
Kind = Literal["any", "absent", "version"]
#: The error (SQLSTATE) by which writes that belong together undo themselves: a division by zero.
NOT_ALL = "22012"
PURGE_BATCH = 200
SCAN_PAGE = 200

_GET = "SELECT value, version, expires_at FROM {name} WHERE key = $1"
_VERSIONS = """
SELECT key, version FROM {name} WHERE key = ANY ($1) AND (expires_at IS NULL OR expires_at > $2)
"""
# The record, without its key, and the versions of others beside it.
_GET_AND_VERSIONS = """
SELECT value, version, expires_at, NULL::bytea FROM {name} WHERE key = $1
UNION ALL
SELECT NULL, version, NULL, key FROM {name}
WHERE key = ANY ($2) AND (expires_at IS NULL OR expires_at > $3)
"""
# The last condition always holds: it gives the three kinds of writes the same values.
_PUT_ANY = """
INSERT INTO {name} AS held (key, value, expires_at, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
    version = held.version + 1
WHERE $5 IS NOT NULL
RETURNING version
"""
_PUT_ABSENT = """
INSERT INTO {name} AS held (key, value, expires_at, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
    version = held.version + 1
WHERE held.expires_at <= $5
RETURNING version
"""
_PUT_VERSION = """
UPDATE {name} SET value = $2, expires_at = $3, version = version + 1
WHERE key = $1 AND version = $4 AND (expires_at IS NULL OR expires_at > $5)
RETURNING version
"""
_DELETE = "DELETE FROM {name} WHERE key = $1 RETURNING expires_at"
_DELETE_VERSION = """
DELETE FROM {name} WHERE key = $1 AND version = $2 AND (expires_at IS NULL OR expires_at > $3)
RETURNING expires_at
"""
_SCAN = """
SELECT value, version, expires_at, key FROM {name}
WHERE key >= $1 AND key < $2 AND (expires_at IS NULL OR expires_at > $3)
ORDER BY key LIMIT $4
"""
# A row that somebody else is just writing is left for the next time instead of waited for. The array
# makes the inner part run once: joined, it could be run again and lock more than it deletes.
_PURGE = """
DELETE FROM {name} WHERE key = ANY (ARRAY(
    SELECT key FROM {name} WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING key
"""


_PUT: dict[Kind, str] = {"any": _PUT_ANY, "absent": _PUT_ABSENT, "version": _PUT_VERSION}
_PUT_TYPES = (BYTEA, BYTEA, FLOAT8, INT8, FLOAT8)


class Statements:
    """The statements for one table, whose name is quoted already."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._put_all: dict[tuple[Kind, ...], Statement] = {}
        self.get = Statement(_GET, BYTEA, name=table)
        self.get_and_versions = Statement(_GET_AND_VERSIONS, BYTEA, BYTEAS, FLOAT8, name=table)
        self.versions = Statement(_VERSIONS, BYTEAS, FLOAT8, name=table)
        self.put = {kind: Statement(text, *_PUT_TYPES, name=table) for kind, text in _PUT.items()}
        self.delete = Statement(_DELETE, BYTEA, name=table)
        self.delete_version = Statement(_DELETE_VERSION, BYTEA, INT8, FLOAT8, name=table)
        self.scan = Statement(_SCAN, BYTEA, BYTEA, FLOAT8, INT8, name=table)
        self.purge = Statement(_PURGE, FLOAT8, INT8, name=table)

    def put_all(self, kinds: Sequence[Kind]) -> Statement:
        """Writes that are done all or not at all; the values of each come after those of the one before.

        Answers with one row, the new versions first. When a write did nothing the row cannot be
        computed, and the server undoes the statement (`NOT_ALL`): that is a round trip less than a
        transaction that somebody has to look at before it may end.
        """
        statement = self._put_all.get(tuple(kinds))
        if statement is None:
            numbers = range(len(kinds))
            writes = ",".join(
                f"w{number} AS ({_shifted(_PUT[kinds[number]], len(_PUT_TYPES) * number)})"
                for number in numbers
            )
            # No value is in the text: numbers and the statements above.
            versions = ", ".join(f"(SELECT version FROM w{number})" for number in numbers)  # noqa: S608
            done = " + ".join(f"(SELECT count(*) FROM w{number})" for number in numbers)  # noqa: S608
            text = f"WITH {writes} SELECT {versions}, 1 / ({done} = {len(kinds)})::int"
            statement = Statement(text, *_PUT_TYPES * len(kinds), name=self._table)
            self._put_all[tuple(kinds)] = statement
        return statement


def _shifted(text: str, by: int) -> str:
    """The same statement, with its values `by` places later."""
    return re.sub(r"\$(\d)", lambda found: f"${int(found[1]) + by}", text)
