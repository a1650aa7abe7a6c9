"""Per request, under a server: uvicorn with httptools, gunicorn with sync and gthread workers.

The figure is the server's CPU time divided by the requests that it answered. All servers of a table
run at the same time and are driven one after another, round by round.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack

from .apps import ASGI, WSGI, App, Place
from .driver import AsgiDriver, WsgiDriver
from .measure import Batch, Figure, Plan, Spent, Subject
from .processes import Process, drive, gunicorn, uvicorn
from .results import Results

#: Under gunicorn only what the goals and the comparison need: each subject costs seconds.
GUNICORN = (
    "Flask",
    "Flask + oauthgate, anonymous",
    "Flask + oauthgate, sqlite, 1 link",
    "Flask session (cookie)",
    "Flask-Session, SQLAlchemy on SQLite",
)


def environment(app: App, place: Place) -> dict[str, str]:
    """What `bench.served` reads."""
    return {
        "BENCH_APP": app.name,
        "BENCH_FOLDER": str(place.folder),
        "BENCH_REDIS": place.redis,
        "BENCH_POSTGRES": place.postgres,
    }


def start(app: App, place: Place, server: str, workers: int = 1) -> AbstractContextManager[Process]:
    """The application under a server: "uvicorn", or gunicorn's "sync" or "gthread"."""
    found = environment(app, place)
    if server == "uvicorn":
        return uvicorn("bench.served:app", found, "/", workers)
    return gunicorn("bench.served:app", found, "/", server, workers)


def visitor(app: App, place: Place) -> str:
    """The cookie of a visitor that the server's process will know, made in this one."""
    with ExitStack() as stack:
        made = app.make(place, app)
        driver = (AsgiDriver if app.kind == "asgi" else WsgiDriver)(made, stack)
        return app.cookies(place, driver)[0]


def subject(
    app: App, place: Place, server: str, seconds: float, late: dict[str, list[float]]
) -> Subject:
    """An application under a server; the 99th percentiles (ms) are appended to `late`."""

    def make(stack: ExitStack) -> Batch:
        cookie = visitor(app, place)
        process = stack.enter_context(start(app, place, server))
        url = f"{process.url}/page"
        drive(url, cookie, seconds / 4)

        def batch(count: int) -> Spent:
            cpu = process.cpu()
            load = drive(url, cookie, seconds)
            late.setdefault(app.name, []).append(load.p99)
            used = process.cpu() - cpu
            return Spent(used / load.requests, load.seconds / load.requests)

        return batch

    return Subject(app.name, make, count=1)


def run(results: Results, place: Place) -> None:
    """The part."""
    rounds = results.plan.but(rounds=3).rounds
    plan = Plan(rounds, 1.0)
    seconds = 0.2 if results.quick else 1.0
    started = time.monotonic()
    for server, apps in (
        ("uvicorn", [app for app in ASGI if app.served]),
        ("sync", [app for app in WSGI if app.name in GUNICORN]),
        ("gthread", [app for app in WSGI if app.name in GUNICORN]),
    ):
        if results.quick:
            apps = apps[:2]
        late: dict[str, list[float]] = {}
        title = "uvicorn with httptools" if server == "uvicorn" else f"gunicorn, {server}"
        results.table(
            server,
            f"A request under {title} (CPU of the server's process)",
            [subject(app, place, server, seconds, late) for app in apps],
            plan=plan,
        )
        for name, values in late.items():
            results.number(f"p99 under {server}, {name} (ms)", Figure.of(values))
    results.say(f"  servers ran for {time.monotonic() - started:.0f} s")
