"""What went wrong with PostgreSQL, as a `StoreError` whose message may be logged.

Owns: the words. What the server answered to a statement is told by its SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html) and never by its text, in which keys and
values can stand. Why no connection came about only libpq's text can tell; it is scrubbed of secrets.
"""

from __future__ import annotations

import psycopg
import psycopg.errors

from ..errors import StoreError
from .postgres_url import Place

#: The server rolled the statement back because of another one at the same moment.
TRANSIENT = {"40001", "40P01"}
READ_ONLY = "25006"

_CURES = {
    READ_ONLY: "the server is a standby, or a failover is under way; name all servers in the URL",
    "08P01": "a pooler such as PgBouncer says so when it has no server; it may be for some seconds more",
    "3F000": "the schema is gone; restart the workers to have it made",
    "42P01": "the table is gone; restore it, or restart the workers to have an empty one made",
    "42501": "the role may not do this; grant it CREATE on the schema, or make the table for it "
    "(SELECT, INSERT, UPDATE and DELETE are enough then)",
    "42703": "a table oauthgate is there that is not ours; choose another schema",
    "42883": "a table oauthgate is there that is not ours; choose another schema",
    "42804": "a table oauthgate is there that is not ours; choose another schema",
    "42809": "something oauthgate is there that is not our table; choose another schema",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has no connection left; raise max_connections, or lower ?connections=",
    "55P03": "another session holds a lock on the table",
    "57014": "the server cancelled the statement; another session may hold a lock on the table",
}


class Lost(StoreError):
    """The connection ended; whether what was sent on it was done cannot be told."""


class Refused(StoreError):
    """The server answered with an error, so nothing was done. `sqlstate` is its code."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def not_connected(place: Place, error: BaseException) -> StoreError:
    """No connection came about."""
    return StoreError(f"PostgreSQL at {place}: no connection: {place.scrub(str(error))}")


def lost(place: Place, sqlstate: str = "") -> Lost:
    """The connection ended in the middle of a statement."""
    why = f": {_explained(sqlstate)}" if sqlstate else ""
    return Lost(f"PostgreSQL at {place}: the connection ended{why}")


def refused(place: Place, sqlstate: str) -> Refused:
    """The server would not do the statement."""
    return Refused(f"PostgreSQL at {place}: {_explained(sqlstate)}", sqlstate)


def overdue(place: Place) -> StoreError:
    """No answer in time."""
    return StoreError(
        f"PostgreSQL at {place}: no answer in {place.timeout:g} s; it is stopped or overloaded, or "
        "another session holds a lock on the table"
    )


def busy(place: Place) -> StoreError:
    """No connection became free in time."""
    return StoreError(
        f"PostgreSQL at {place}: all {place.connections} connections of this process were busy for "
        f"{place.timeout:g} s; raise ?connections="
    )


def _explained(sqlstate: str) -> str:
    """An error's name, its code, and the cure where one is known."""
    try:
        name = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        name = "an error"
    # The code comes from the server, which may be any.
    code = sqlstate if len(sqlstate) == 5 and sqlstate.isascii() and sqlstate.isalnum() else "no code"
    cure = _CURES.get(sqlstate)
    return f"{name} ({code}){f'; {cure}' if cure else ''}"
