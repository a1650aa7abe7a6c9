"""Per request, in process: what each package adds to the same small page.

Also what the goals ask of a steady session: nothing written, no cookie set, a read that other users'
writes do not slow down, and sealing that costs next to nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from contextlib import ExitStack

from .apps import ASGI, DJANGO_APPS, VARIANTS, WSGI, App, Place, gate_config
from .driver import AsgiDriver, WsgiDriver
from .measure import Batch, Plan, Spent, Subject
from .results import Results
from .site import unsealed

STEADY = 1000


def subject(app: App, place: Place) -> Subject:
    """An application of `apps` as a subject."""

    def make(stack: ExitStack) -> Batch:
        with contextlib.ExitStack() as making:
            if not app.sealed:
                making.enter_context(unsealed())
            made = app.make(place, app)
            driver = (AsgiDriver if app.kind == "asgi" else WsgiDriver)(made, stack)
            cookies = app.cookies(place, driver)
            first = driver.get("/page", cookies[0])  # Starlette makes its middleware at the first
            assert first.status == 200, first.body
        return driver.batch(cookies)

    return Subject(app.name, make)


def with_foreign_writes(app: App, place: Place, every: int = 100) -> Subject:
    """The same, while another connection writes another user's record after each `every` reads."""

    def make(stack: ExitStack) -> Batch:
        batch = subject(app, place).make(stack)
        path = gate_config(place, app)["oauthgate"]["store"].removeprefix("sqlite:///")
        other = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
        other.execute("PRAGMA synchronous=OFF")
        insert = "INSERT INTO oauthgate (key, value, version) VALUES (?, ?, 1)"
        other.execute(insert, ("user/somebody-else", b"x" * 1000))

        def many(count: int) -> Spent:
            spent = Spent(0, 0)
            for start in range(0, count, every):
                cpu, wall = time.process_time(), time.perf_counter()
                batch(min(every, count - start))
                spent += Spent(time.process_time() - cpu, time.perf_counter() - wall)
                other.execute(
                    "UPDATE oauthgate SET version = version + 1 WHERE key = 'user/somebody-else'"
                )
            return spent

        return many

    return Subject("a foreign write each 100 reads", make)


def without_foreign_writes(app: App, place: Place, every: int = 100) -> Subject:
    """The same in batches of the same size, without the writes."""

    def make(stack: ExitStack) -> Batch:
        batch = subject(app, place).make(stack)

        def many(count: int) -> None:
            for start in range(0, count, every):
                batch(min(every, count - start))

        return many

    return Subject("no foreign writes", make)


def run(results: Results, place: Place) -> None:
    """The part."""
    results.table(
        "asgi",
        "A request over ASGI, in process (Starlette)",
        [subject(app, place) for app in ASGI],
    )
    results.table(
        "wsgi", "A request over WSGI, in process (Flask)", [subject(app, place) for app in WSGI]
    )
    results.table(
        "django",
        "A request over WSGI, in process (Django)",
        [subject(app, place) for app in DJANGO_APPS],
    )
    sqlite = VARIANTS[0]
    plan = results.plan
    results.table(
        "variants",
        "The signed-in request on SQLite under other conditions",
        [
            *(subject(app, place) for app in VARIANTS),
            without_foreign_writes(sqlite, place),
            with_foreign_writes(sqlite, place),
        ],
        plan=Plan(
            plan.rounds, plan.seconds, max(plan.least, 200 if not results.quick else 3), plan.most
        ),
    )
    results.number("writes and cookies in steady requests", steady(results, place))


def steady(results: Results, place: Place) -> int:
    """Store writes and `Set-Cookie` headers in steady requests of one session, over both adapters."""
    found = 0
    for app in [each for each in [*ASGI, *WSGI] if each.store == "sqlite" and each.links == 1]:
        with ExitStack() as stack:
            made = app.make(place, app)
            driver = (AsgiDriver if app.kind == "asgi" else WsgiDriver)(made, stack)
            cookie = app.cookies(place, driver)[0]
            driver.get("/page", cookie)
            path = gate_config(place, app)["oauthgate"]["store"].removeprefix("sqlite:///")
            before = _contents(path)
            for _ in range(20 if results.quick else STEADY):
                answer = driver.get("/page", cookie)
                assert answer.status == 200
                found += len(answer.cookies())
            found += before != _contents(path)
    return found


def _contents(path: str) -> list[tuple[str, int]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT key, version FROM oauthgate ORDER BY key").fetchall()
