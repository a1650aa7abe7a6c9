"""The one table of a PostgreSQL store: made, and brought up to date, by whichever worker comes first.

Owns: its definition and its versions. The version stands in the table's comment, so that there is no
second table. The advisory lock makes all the others wait for the one that changes something; it ends
with the transaction, which a pooler in transaction mode keeps on one connection.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from ..errors import StoreError
from .postgres_link import INT8, TEXT, Row, Statement

VERSION = 1
#: "oauthgat": nobody else should happen to lock this number.
LOCK = 0x6F61757468676174

#: For each version the statements that lead to it from the one before.
#: Keys are bytes: compared as bytes in whatever encoding and collation the database has. Sealed values
#: cannot be compressed, so PostgreSQL is not to try; free space in the pages lets an update stay where
#: it is without touching the index.
MIGRATIONS: list[list[str]] = [
    [
        """CREATE TABLE {name} (
            key bytea PRIMARY KEY,
            value bytea NOT NULL,
            version bigint NOT NULL,
            expires_at double precision
        ) WITH (fillfactor = 80)""",
        "ALTER TABLE {name} ALTER COLUMN value SET STORAGE EXTERNAL",
        "CREATE INDEX oauthgate_expires_at ON {name} (expires_at) WHERE expires_at IS NOT NULL",
    ],
]

_COMMENT = "oauthgate schema "
# No rows: no table. A table whose comment was lost in a restore is of the first version. The catalogue
# is read as a table: `to_regclass` may answer from a cache, which a wait for the advisory lock does not
# renew, so that who waited would make the table a second time.
_VERSION = Statement(
    "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'oauthgate'",
    TEXT,
)
_HAS_SCHEMA = Statement("SELECT 1 FROM pg_namespace WHERE nspname = $1", TEXT)
_SET_VERSION = f"COMMENT ON TABLE {{name}} IS '{_COMMENT}{VERSION}'"
_LOCK = Statement("SELECT pg_advisory_xact_lock($1)", INT8)

Run = Callable[..., Awaitable[list[Row]]]


def quoted(name: str) -> str:
    """An SQL identifier; the name may be anything."""
    return '"' + name.replace('"', '""') + '"'


def table_in(schema: str) -> str:
    """The table's full name, quoted: whose `search_path` it is does not matter then."""
    return f"{quoted(schema)}.oauthgate"


async def prepare(run: Run, schema: str, where: str) -> None:
    """Make sure that the table is there in this version. `run` sends a statement on one connection.

    Raises `StoreError`, also when the table is of a newer version.
    """
    if await _version(run, schema, where) == VERSION:
        return  # also for a role that could not have made it
    await run(Statement("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"))
    await run(_LOCK, LOCK.to_bytes(8, "big"))
    # At that level, whatever the default here is, what the one before us committed is seen now.
    version = await _version(run, schema, where)
    if not await run(_HAS_SCHEMA, schema.encode()):
        # Asked before, because IF NOT EXISTS wants the right to create also where it exists.
        await run(Statement("CREATE SCHEMA {name}", name=quoted(schema)))
    table = table_in(schema)
    for statements in MIGRATIONS[version:VERSION]:
        for text in statements:
            await run(Statement(text, name=table))
    if version < VERSION:
        await run(Statement(_SET_VERSION, name=table))
    await run(Statement("COMMIT"))


async def _version(run: Run, schema: str, where: str) -> int:
    rows = await run(_VERSION, schema.encode())
    if not rows:
        return 0
    found = re.match(rf"{_COMMENT}(\d+)", (rows[0][0] or b"").decode("utf-8", "replace"))
    version = int(found[1]) if found else 1
    if version > VERSION:
        raise StoreError(
            f"PostgreSQL at {where}: the table was made by a newer oauthgate (schema {version}, this "
            f"one knows {VERSION}): upgrade oauthgate"
        )
    return version
