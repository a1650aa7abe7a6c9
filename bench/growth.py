"""Growth: users, links and workers; bytes, memory, the time of an import and of a cold start.

The users of a file are written in bulk, sealed as the gate would have sealed them, each with three
links and the claims of their accounts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

import oauthgate
from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT

from . import cold
from .apps import WSGI, App, Place, starlette_gate
from .driver import AsgiDriver
from .measure import Batch, Figure, Missing, Plan, Spent, Subject, Watch
from .processes import ROOT, Process, drive
from .results import Results
from .server import start, visitor
from .site import cookie_header, fill_sqlite, make_config, make_link, make_user, service

LINKS = 3
PURGED = 100
#: Visitors that come by turns: more than one, so that nothing is only the last one's cache.
VISITORS = 200

IMPORTS = {
    "Starlette alone": "pass",
    "oauthgate": "import oauthgate; oauthgate.install",
    "oauthgate and its ASGI gate": "import oauthgate; oauthgate.ASGIGate",
    "Authlib": "from authlib.integrations.starlette_client import OAuth",
}
_IMPORT = """
import re, time
import starlette.applications, starlette.middleware.sessions, starlette.requests
import starlette.responses, starlette.routing
def memory():
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(r"^Anonymous:\\s+(\\d+)", file.read(), re.M)[1])
before, cpu, wall = memory(), time.process_time(), time.perf_counter()
{statement}
print(time.process_time() - cpu, time.perf_counter() - wall, memory() - before)
"""


def run(results: Results, place: Place) -> None:
    """The part."""
    _users(results, place)
    _links(results, place)
    _imports(results)
    cold.run(results)
    _workers(results, place)


# -- users


def _users(results: Results, place: Place) -> None:
    sizes = (100, 1000) if results.quick else (1_000, 10_000, 100_000, 1_000_000)
    files: dict[int, tuple[dict[str, Any], list[str]]] = {}
    for size in sizes:
        began = time.monotonic()
        path = place.folder / f"grown-{size}.db"
        config = make_config(f"sqlite:///{path}", services=LINKS)
        files[size] = (config, fill_sqlite(config, size, LINKS, min(size, VISITORS)))
        results.number(f"bytes of each user, {size:,} users", path.stat().st_size / size)
        if time.monotonic() - began > 5:
            results.say(f"  {size:,} users written in {time.monotonic() - began:.0f} s")

    def table(key: str, title: str, make: Callable[[int], Subject], plan: Plan) -> None:
        results.table(key, title, [make(size) for size in sizes], plan=plan)

    plan = results.plan
    few = Plan(plan.rounds, plan.seconds, plan.least, 200)

    def read(size: int) -> Subject:
        def make(stack: ExitStack) -> Batch:
            config, cookies = files[size]
            made = visitors_page()
            oauthgate.install(made, config)
            return AsgiDriver(made, stack).batch([cookie_header(cookie) for cookie in cookies])

        return Subject(f"{size:,} users", make)

    table("growth read", "A signed-in request, by users in the file", read, plan)
    for key, title, work in (
        ("growth insert", "Writing a new user, by users in the file", _insert),
        ("growth login", "The records of a login, by users in the file", _login),
        ("growth refresh", "The records of a refresh, by users in the file", _refresh),
    ):
        table(key, title, lambda size, work=work: _records(size, files[size][0], work), few)  # type: ignore[misc]
    purge = Plan(plan.rounds, plan.seconds, 1, 3)
    title = f"Purging {PURGED} expired records, by users in the file"
    table("growth purge", title, lambda size: _purge(size, files[size][0]), purge)


def visitors_page() -> Any:
    """A Starlette application with one page, which says who the visitor is."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.oauth.user_id)

    return Starlette(routes=[Route("/page", page)])


def _gate(config: dict[str, Any], stack: ExitStack) -> Gate:
    gate = Gate(Config.load(config), BlockingIO())
    stack.callback(lambda: step(gate.close()))
    return gate


def _records(size: int, config: dict[str, Any], work: Callable[[Gate], Callable[[], None]]) -> Subject:
    def make(stack: ExitStack) -> Batch:
        operation = work(_gate(config, stack))

        def batch(count: int) -> None:
            for _ in range(count):
                operation()

        return batch

    return Subject(f"{size:,} users", make)


def _insert(gate: Gate) -> Callable[[], None]:
    links = [make_link(service(number), "new", time.time()) for number in range(LINKS)]

    def operation() -> None:
        user, _ = make_user(gate.keys, links, time.time())
        step(gate.vault.put(f"user/{user.id}", user, expect=ABSENT))

    return operation


def _login(gate: Gate) -> Callable[[], None]:
    model = make_link(service(0), "model", time.time())

    def operation() -> None:
        link = msgspec.structs.replace(model, account_id=secrets.token_hex(8))
        step(gate.accounts.login(link, old=None, sid=""))

    return operation


def _refresh(gate: Gate) -> Callable[[], None]:
    now = time.time()
    user, _ = make_user(gate.keys, [make_link(service(0), secrets.token_hex(8), now)], now)
    step(gate.vault.put(f"user/{user.id}", user, expect=ABSENT))
    held = [user.links[0]]

    def operation() -> None:
        before = held[0]
        token = msgspec.structs.replace(before.token, access_token=secrets.token_urlsafe(32))
        after = step(
            gate.accounts.replace_link(
                user.id, before, lambda link: msgspec.structs.replace(link, token=token)
            )
        )
        assert after is not None and after.token == token
        held[0] = after

    return operation


def _purge(size: int, config: dict[str, Any]) -> Subject:
    def make(stack: ExitStack) -> Batch:
        gate = _gate(config, stack)
        path = config["oauthgate"]["store"].removeprefix("sqlite:///")
        other = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
        other.execute("PRAGMA synchronous=OFF")

        def batch(count: int) -> Spent:
            watch = Watch()
            for _ in range(count):
                rows = [(f"flow-used/{secrets.token_hex(32)}", b"x" * 120) for _ in range(PURGED)]
                other.execute("BEGIN")
                other.executemany(
                    "INSERT INTO oauthgate (key, value, version, expires_at) VALUES (?, ?, 1, 1.0)", rows
                )
                other.execute("COMMIT")
                with watch:
                    assert step(gate.store.purge(time.time())) == PURGED
            return watch.spent

        return batch

    return Subject(f"{size:,} users", make)


# -- links


def _links(results: Results, place: Place) -> None:
    def subject(links: int) -> Subject:
        def make(stack: ExitStack) -> Batch:
            app = App(f"{links} links", "asgi", starlette_gate, "sqlite", links)
            driver = AsgiDriver(starlette_gate(place, app), stack)
            return driver.batch(app.cookies(place, driver))

        return Subject(f"{links} link{'s' * (links > 1)}", make)

    title = "A signed-in request on SQLite, by links of the visitor"
    results.table("growth links", title, [subject(links) for links in (1, 3, 10, 20, 50)])


# -- imports


def _imports(results: Results) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        results.missing["imports"] = "memory is read from /proc, which is not there"
        return
    memory: dict[str, list[float]] = {}

    def subject(name: str, statement: str) -> Subject:
        def make(stack: ExitStack) -> Batch:
            code = _IMPORT.format(statement=statement)

            def batch(count: int) -> Spent:
                said = subprocess.run(
                    [sys.executable, "-c", code],
                    capture_output=True,
                    text=True,
                    check=True,
                    cwd=ROOT,
                    env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
                )
                cpu, wall, more = map(float, said.stdout.split())
                memory.setdefault(name, []).append(more)
                return Spent(cpu, wall)

            batch(1)
            del memory[name]
            return batch

        return Subject(name, make, count=1)

    subjects = [subject(name, statement) for name, statement in IMPORTS.items()]
    title = "An import, added to a process that has Starlette"
    results.table("import", title, subjects, plan=Plan(max(1, min(7, results.plan.rounds)), 1))
    for name, values in memory.items():
        results.number(f"memory of the import, {name} (KiB)", Figure.of(values))


# -- workers


def _workers(results: Results, place: Place) -> None:
    """Memory of each worker and CPU time of each request, by workers."""
    chosen = [app for app in WSGI if app.name in ("Flask", "Flask + oauthgate, sqlite, 1 link")]
    seconds = 0.2 if results.quick else 1.0
    for app in chosen:
        for workers in (1,) if results.quick else (1, 4, 16):
            cookie = visitor(app, place)
            try:
                with start(app, place, "sync", workers) as process:
                    url = f"{process.url}/page"
                    drive(url, cookie, seconds, 4 * workers)
                    _settle(process)
                    before = process.cpu()
                    load = drive(url, cookie, seconds, 4 * workers)
                    used = (process.cpu() - before) / load.requests
                    name = f"{app.name}, {workers} workers"
                    results.number(f"memory of each worker, {name} (MiB)", Figure.of(process.memory()))
                    results.number(f"CPU of each request, {name} (µs)", used * 1e6)
            except Missing as error:
                results.missing[f"{app.name}, {workers} workers"] = str(error)


def _settle(process: Process) -> None:
    """Wait until all workers have started: that takes more CPU time than the requests."""
    for _ in range(100):
        before = process.cpu()
        time.sleep(0.2)
        if process.cpu() - before < 0.02:
            return
