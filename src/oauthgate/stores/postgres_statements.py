"""What is sent to PostgreSQL, for one table.

Each statement decides and writes in one step, so that the server's own rules for a single statement are
all the atomicity that is needed: of two writers of one row, the second waits for the first and then
looks again at the condition (https://www.postgresql.org/docs/current/transaction-iso.html, 13.2.1).

An expired row counts as absent, by the clock of who asks, as in every store. A row that is taken over
goes on counting its versions; a new one begins with a random number that the caller gives, so that a
version does not come back after a delete either.
"""

from __future__ import annotations

from .postgres_link import BYTEA, BYTEAS, FLOAT8, INT8, Statement

PURGE_BATCH = 200
SCAN_PAGE = 200

_GET = "SELECT value, version, expires_at FROM {name} WHERE key = $1"
_VERSIONS = """
SELECT key, version FROM {name} WHERE key = ANY ($1) AND (expires_at IS NULL OR expires_at > $2)
"""
_PUT_ANY = """
INSERT INTO {name} AS held (key, value, expires_at, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
    version = held.version + 1
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


class Statements:
    """The statements for one table, whose name is quoted already."""

    def __init__(self, table: str) -> None:
        put = (BYTEA, BYTEA, FLOAT8, INT8)
        self.get = Statement(_GET, BYTEA, name=table)
        self.versions = Statement(_VERSIONS, BYTEAS, FLOAT8, name=table)
        self.put_any = Statement(_PUT_ANY, *put, name=table)
        self.put_absent = Statement(_PUT_ABSENT, *put, FLOAT8, name=table)
        self.put_version = Statement(_PUT_VERSION, *put, FLOAT8, name=table)
        self.delete = Statement(_DELETE, BYTEA, name=table)
        self.delete_version = Statement(_DELETE_VERSION, BYTEA, INT8, FLOAT8, name=table)
        self.scan = Statement(_SCAN, BYTEA, BYTEA, FLOAT8, INT8, name=table)
        self.purge = Statement(_PURGE, FLOAT8, INT8, name=table)
