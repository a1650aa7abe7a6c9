"""A thousand and a million users in SQLite and PostgreSQL: what a signed-in request costs.

Not part of a whole run, because writing two million documents takes minutes. Nothing is believed without
asking, so each request reads its visitor's record; half the memory that PostgreSQL has by itself is
smaller than its table.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from oauthgate.asgi import ASGIGate
from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.stepping import run as step

from .apps import Place
from .driver import AsgiDriver
from .growth import LINKS, VISITORS, visitors_page
from .measure import Batch, Figure, Missing, Subject
from .peers import peer
from .results import Results
from .site import cookie_header, fill_sqlite, make_config, sealed_rows

GROWS = "÷ with 1,000 users: "


def fill_postgres(config: dict[str, Any], url: str, schema: str, users: int) -> tuple[list[str], float]:
    """Fill the configured table: cookies of some visitors, and bytes of each user."""
    psycopg = peer("psycopg")
    gate = Gate(Config.load(config), BlockingIO())
    step(gate.vault.check_keys())  # makes the schema and the table
    step(gate.close())
    cookies: list[str] = []
    rows = sealed_rows(gate.keys, users, LINKS, cookies, min(users, VISITORS))
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        table = f'"{schema}".oauthgate'
        with cursor.copy(f"COPY {table} (key, value, version) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["bytea", "bytea", "int8"])
            for key, value, version in rows:
                copy.write_row((key.encode(), value, version))
        cursor.execute("SELECT pg_total_relation_size(%s)", (table,))
        size: int = cursor.fetchone()[0]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'VACUUM ANALYZE "{schema}".oauthgate')
    return cookies, size / users


def run(results: Results, place: Place) -> None:
    """The part."""
    sizes = (100, 1_000) if results.quick else (1_000, 1_000_000)
    for engine in ("sqlite", "postgres"):
        subjects = []
        try:
            for users in sizes:
                began = time.monotonic()
                config, cookies, size = _filled(engine, users, place)
                results.number(f"bytes of each user, {engine}, {users:,} users", size)
                results.say(f"  {engine}: {users:,} users written in {time.monotonic() - began:.0f} s")
                subjects.append(_reads(f"{users:,} users", config, cookies))
        except Missing as error:
            results.missing[f"a million users, {engine}"] = str(error)
            continue
        key = f"million {engine}"
        results.table(key, f"A signed-in request that reads, by users in {engine}", subjects)
        names = [subject.name for subject in subjects]
        for clock in ("cpu", "wall"):
            found = results.ratio(key, names[1], names[0], clock=clock)
            results.number(f"{engine}, {names[1]} {GROWS}{clock}", found or Figure(0, 0, 0))


def _filled(engine: str, users: int, place: Place) -> tuple[dict[str, Any], list[str], float]:
    if engine == "sqlite":
        path = place.folder / f"million-{users}.db"
        config = make_config(f"sqlite:///{path}", services=LINKS)
        return (
            config,
            fill_sqlite(config, users, LINKS, min(users, VISITORS)),
            path.stat().st_size / users,
        )
    url, schema = place.server("postgres"), f"million_{users}"
    config = make_config(f"{url}?schema={schema}", services=LINKS)
    return config, *fill_postgres(config, url, schema, users)


def _reads(name: str, config: dict[str, Any], cookies: list[str]) -> Subject:
    def make(stack: ExitStack) -> Batch:
        app = ASGIGate(visitors_page(), config)
        app.gate.vault.holds = lambda found: False  # type: ignore[method-assign] # every request reads
        return AsgiDriver(app, stack).batch([cookie_header(cookie) for cookie in cookies])

    return Subject(name, make)
