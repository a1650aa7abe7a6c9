"""What the SQLite store says to SQLite: its one table, and the statements that the contract comes to."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from ..errors import Conflict
from .base import ABSENT, ANY, Expect

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS oauthgate (
    key TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    expires_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS oauthgate_expires_at
    ON oauthgate (expires_at) WHERE expires_at IS NOT NULL;
"""
PURGE_BATCH = 200

GET = "SELECT value, version, expires_at FROM oauthgate WHERE key = ?"
# An expired row counts as absent: the insert takes its place, with a version that was never used.
_PUT_ANY = """
INSERT INTO oauthgate (key, value, version, expires_at) VALUES (:key, :value, :fresh, :expires_at)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1,
    expires_at = excluded.expires_at
RETURNING version
"""
_PUT_ABSENT = """
INSERT INTO oauthgate (key, value, version, expires_at) VALUES (:key, :value, :fresh, :expires_at)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1,
    expires_at = excluded.expires_at
WHERE oauthgate.expires_at <= :now
RETURNING version
"""
_PUT_VERSION = """
UPDATE oauthgate SET value = :value, version = version + 1, expires_at = :expires_at
WHERE key = :key AND version = :expect AND (expires_at IS NULL OR expires_at > :now)
RETURNING version
"""
_DELETE = "DELETE FROM oauthgate WHERE key = :key RETURNING version, expires_at"
_DELETE_VERSION = """
DELETE FROM oauthgate WHERE key = :key AND version = :expect
    AND (expires_at IS NULL OR expires_at > :now)
RETURNING version, expires_at
"""
SCAN = """
SELECT key, value, version, expires_at FROM oauthgate
WHERE key >= ? AND key < ? AND key IS NOT ? AND (expires_at IS NULL OR expires_at > ?)
ORDER BY key LIMIT 500
"""
_PURGE = """
DELETE FROM oauthgate WHERE rowid IN (
    SELECT rowid FROM oauthgate WHERE expires_at <= ? LIMIT ?
) RETURNING 1
"""

Row = tuple[object, ...]


class Statement(NamedTuple):
    """One statement and its values."""

    text: str
    values: dict[str, object] | tuple[object, ...]


def put(key: str, value: bytes, expires_at: float | None, expect: Expect, now: float) -> Statement:
    """Answers with the new version, or with no row when `expect` does not hold.

    Raises `Conflict` for a version that SQLite cannot have.
    """
    _check_version(key, expect)
    text = _PUT_VERSION
    if expect is ANY:
        text = _PUT_ANY
    elif expect is ABSENT:
        text = _PUT_ABSENT
    return Statement(
        text,
        {
            "key": key,
            "value": value,
            "expires_at": expires_at,
            "fresh": secrets.randbits(52),
            "expect": expect if isinstance(expect, int) else 0,
            "now": now,
        },
    )


def delete(key: str, expect: Expect, now: float) -> Statement:
    """Answers with the version and expiry of what was deleted, or with no row. Raises as `put`."""
    _check_version(key, expect)
    if isinstance(expect, int):
        return Statement(_DELETE_VERSION, {"key": key, "expect": expect, "now": now})
    return Statement(_DELETE, {"key": key})


def purge(now: float) -> Statement:
    """Answers with a row for each of at most `PURGE_BATCH` expired records, which it deletes."""
    return Statement(_PURGE, (now, PURGE_BATCH))


def new_version(key: str, expect: Expect, rows: list[Row]) -> int:
    """What `put` answered. Raises `Conflict`."""
    if not rows:
        raise conflict(key, expect)
    return int(str(rows[0][0]))


def _check_version(key: str, expect: Expect) -> None:
    if isinstance(expect, int) and not -(2**63) <= expect < 2**63:
        raise conflict(key, expect)  # no version of ours, and no number of SQLite's


def conflict(key: str, expect: Expect) -> Conflict:
    """Names the record's kind alone: the rest of a key may be a user's id."""
    return Conflict(f"the record {key.partition('/')[0]}/… is not as the writer expected ({expect!r})")


def after(prefix: str) -> str | bytes:
    """What sorts after every key that starts with `prefix` (SQLite compares text as UTF-8 bytes)."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return b""  # any blob sorts after all text
    following = ord(kept[-1]) + 1
    # Surrogates are no text of their own: the character after U+D7FF is U+E000.
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)
