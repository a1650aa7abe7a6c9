"""What the benchmarks are to show: each goal with its condition, its bound, and where its figure is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import handlers
from .call import IDLE, OVER_AIOHTTP, POOLED
from .growth import PURGED
from .login import TOKEN_REQUEST
from .measure import Figure
from .refresh import CALLS
from .results import Results

Sense = Literal["≤", "≥", "="]
Find = Callable[[Results], "Figure | None"]


@dataclass(frozen=True, slots=True)
class Goal:
    """`number` is the goal's own; several figures may belong to one."""

    number: int
    text: str
    condition: str
    sense: Sense
    bound: float
    find: Find

    def met(self, figure: Figure) -> bool:
        """Judged by the median."""
        if self.sense == "≤":
            return figure.median <= self.bound
        if self.sense == "≥":
            return figure.median >= self.bound
        return figure.median == self.bound


def _ratio(key: str, above: str, below: str, base: str | None = None, clock: str = "cpu") -> Find:
    """`above ÷ below` in one table; with a base, what each adds to it."""
    return lambda found: found.ratio(key, above, below, above_base=base, below_base=base, clock=clock)


def _number(name: str) -> Find:
    return lambda found: found.numbers.get(name)


def _median(key: str, name: str, clock: str, unit: float = 1.0) -> Find:
    def find(found: Results) -> Figure | None:
        table = found.tables.get(key)
        if table is None or name not in table.samples:
            return None
        return Figure.of(value * unit for value in table.samples[name].of(clock))

    return find


def _at_once(found: Results) -> Figure | None:
    """Wall time of logins at once against the same in a row divided by the cores."""
    name = "oauthgate (Starlette)"
    once, row = (_median(f"logins {key}", name, "wall")(found) for key in ("at once", "in a row"))
    if once is None or row is None:
        return None
    cores = os.cpu_count() or 1
    return Figure(*(value / row.median * cores for value in (once.median, once.low, once.high)))


def _memory(name: str) -> Find:
    return lambda found: _quotient(
        found.numbers.get(f"memory of the import, {name} (KiB)"),
        found.numbers.get("memory of the import, Authlib (KiB)"),
    )


_S, _F = "Starlette", "Flask"
_SQLITE = " + oauthgate, sqlite, 1 link"
_OURS = "oauthgate, bearer"
_LOGINS = {
    "oauthgate (Starlette)": "SQLite: on disk before it is answered",
    "oauthgate (Starlette), memory store": "memory store: nothing on a disk, as with Authlib",
}
_IMPORTS = {
    "oauthgate": "`import oauthgate`, with `install`",
    "oauthgate and its ASGI gate": "and all that a gate is made of",
}
_MANY, _FEW = "1,000,000 users", "1,000 users"

GOALS: list[Goal] = [
    Goal(
        1, "anonymous ASGI ÷ bare Starlette", "in process", "≤", 1.10,
        _ratio("asgi", f"{_S} + oauthgate, anonymous", _S),
    ),
    Goal(
        1, "anonymous ASGI ÷ bare Starlette", "CPU under uvicorn", "≤", 1.03,
        _ratio("uvicorn", f"{_S} + oauthgate, anonymous", _S),
    ),
    Goal(
        2, "anonymous WSGI ÷ bare Flask", "in process", "≤", 1.02,
        _ratio("wsgi", f"{_F} + oauthgate, anonymous", _F),
    ),
    Goal(
        3, "signed in ÷ Starlette's cookie session", "added, SQLite, sealed, 1 link", "≤", 0.55,
        _ratio("asgi", _S + _SQLITE, "Starlette SessionMiddleware (cookie)", _S),
    ),
    Goal(
        3, "the same, next step", "added, SQLite, sealed, 1 link", "≤", 0.25,
        _ratio("asgi", _S + _SQLITE, "Starlette SessionMiddleware (cookie)", _S),
    ),
    Goal(
        4, "signed in on SQLite ÷ starsessions on Redis", "added, CPU of the application", "≤", 0.10,
        _ratio("asgi", _S + _SQLITE, "starsessions, redis", _S),
    ),
    Goal(
        5, "signed in ÷ Flask's cookie session", "added, SQLite, both only read", "≤", 0.5,
        _ratio("wsgi", _F + _SQLITE, "Flask session (cookie)", _F),
    ),
    Goal(
        5, "signed in ÷ Flask-Session on SQLAlchemy", "added, SQLite, both only read", "≤", 0.10,
        _ratio("wsgi", _F + _SQLITE, "Flask-Session, SQLAlchemy on SQLite", _F),
    ),
    Goal(
        6, "store writes and Set-Cookie headers", "1,000 steady requests, each adapter", "=", 0,
        _number("writes and cookies in steady requests"),
    ),
    Goal(
        7, "signed in, a foreign write each 100 reads ÷ none", "SQLite, the write itself not counted",
        "≤", 1.35, _ratio("variants", "a foreign write each 100 reads", "no foreign writes"),
    ),
    Goal(
        8, "sealing on ÷ off", "SQLite, one visitor", "≤", 1.05,
        _ratio("variants", "oauthgate, 1 link", "sealing off"),
    ),
    Goal(
        8, "sealing on ÷ off", "SQLite, 4,096 visitors by turns, more than are kept opened", "≤", 1.05,
        _ratio("variants", "4,096 visitors by turns", "4,096 visitors by turns, sealing off"),
    ),
    Goal(
        9, 'services["x"].get() ÷ pooled httpx2, constant header', "http, one at a time", "≤", 1.05,
        _ratio("call http 1", _OURS, POOLED),
    ),
    Goal(
        10, f"the same with {IDLE} idle connections to other services", "http, one at a time", "≤", 1.05,
        _ratio("call http 1", f"{_OURS}, {IDLE} idle services", POOLED),
    ),
    Goal(
        11, "call ÷ pooled httpx2", 'http, one at a time, `transport = "aiohttp"`', "≤", 0.65,
        _ratio("call http 1", OVER_AIOHTTP, POOLED),
    ),
    Goal(
        11, "call ÷ pooled httpx2", 'http, 100 in flight, `transport = "aiohttp"`', "≤", 0.25,
        _ratio("call http 100", OVER_AIOHTTP, POOLED),
    ),
    Goal(
        12, "handler with session and call ÷ by hand", "http; by hand: pooled, no session at all",
        "≤", 1.10, _ratio("handler starlette http", handlers.OURS, handlers.BY_HAND),
    ),
    Goal(
        13, "Authlib on Starlette ÷ ours", "handler, http, as documented: a TLS context for each call",
        "≥", 40, _ratio("handler starlette http", handlers.AUTHLIB, handlers.OURS),
    ),
    Goal(
        13, "Authlib on Starlette ÷ ours", "handler, http, tuned: one TLS context", "≥", 2.2,
        _ratio("handler starlette http", handlers.AUTHLIB_TUNED, handlers.OURS),
    ),
    Goal(
        13, "Authlib on Starlette ÷ ours", "handler, https, tuned: one TLS context", "≥", 4.5,
        _ratio("handler starlette https", handlers.AUTHLIB_TUNED, handlers.OURS),
    ),
    *(
        Goal(
            14, f"{name} on Flask ÷ ours", f"handler, {scheme}", "≥", bound,
            _ratio(f"handler flask {scheme}", peer, handlers.OURS),
        )
        for scheme, bound in (("http", 3.3), ("https", 6.5))
        for name, peer in (("Authlib", handlers.AUTHLIB), ("Flask-Dance", handlers.FLASK_DANCE))
    ),
    *(
        Goal(
            15, "OAuth 1.0a signing ÷ Authlib's", f"HMAC-SHA1, {what}", "≤", 0.2,
            _ratio("signing", f"oauthgate, {what}", f"Authlib, {what}"),
        )
        for what in ("GET", "POST of a form")
    ),
    Goal(
        15, "bodies that arrive intact", "JSON, form, bytes, stream, multipart", "=", 5,
        _number("bodies that arrive intact, oauthgate OAuth 1.0a"),
    ),
    *(
        Goal(
            16, "login ÷ the bare token request", f"http, {what}; {condition}", "≤", 2.0,
            _ratio("login http", f"{login}{row}", TOKEN_REQUEST),
        )
        for login, condition in _LOGINS.items()
        for what, row in (("the callback", ", callback only"), ("start and callback", ""))
    ),
    Goal(16, "new connections in each login", "http", "=", 0, _number("new connections in each login")),
    *(
        Goal(
            17, "Authlib's login on Starlette ÷ ours", f"{scheme}, {how}; {condition}", "≥", bound,
            _ratio(f"login {scheme}", f"Authlib on Starlette, {how}", login),
        )
        for login, condition in _LOGINS.items()
        for scheme, how, bound in (
            ("http", "as documented", 40),
            ("http", "tuned (one TLS context)", 2),
            ("https", "tuned (one TLS context)", 4),
        )
    ),
    *(
        Goal(
            18, f"refreshes of {CALLS} calls at once", f"in each of {number}, token expired", "=", 1,
            _number(f"refreshes of {CALLS} calls in each of {number.split()[0]} processes"),
        )
        for number in ("1 process", "4 processes")
    ),
    Goal(
        19, "a request, 10⁶ ÷ 10³ users", "SQLite, 200 visitors by turns", "≤", 2.5,
        _ratio("growth read", _MANY, _FEW),
    ),
    Goal(
        19, "a new user, 10⁶ ÷ 10³ users", "SQLite, CPU (the disk's wait is the same)", "≤", 3,
        _ratio("growth insert", _MANY, _FEW),
    ),
    Goal(
        19, f"purge of {PURGED} expired records (ms)", "SQLite, 10⁶ users, wall time", "≤", 5,
        _median("growth purge", _MANY, "wall", 1e-3),
    ),
    Goal(
        19, "bytes of each user", "3 links, claims of the accounts and indexes included", "≤", 2000,
        _number(f"bytes of each user, {_MANY}"),
    ),
    *(
        Goal(
            20, "time of the import ÷ Authlib's", f"added to a process with Starlette, CPU; {what}",
            "≤", 0.5, _ratio("import", name, "Authlib"),
        )
        for name, what in _IMPORTS.items()
    ),
    *(
        Goal(
            20, "memory of the import ÷ Authlib's", f"added to a process with Starlette; {what}",
            "≤", 0.8, _memory(name),
        )
        for name, what in _IMPORTS.items()
    ),
    Goal(
        21, "20 logins at once ÷ (20 in a row ÷ cores)", "wall time, Starlette, one process", "≤", 1.0,
        _at_once,
    ),
    *(
        Goal(
            22, f"{store} ÷ SQLite", "signed in, in process, near-cache on", "≤", 1.2,
            _ratio("asgi", f"{_S} + oauthgate, {key}, 1 link", _S + _SQLITE),
        )
        for store, key in (("Redis", "redis"), ("PostgreSQL", "postgres"))
    ),
]  # fmt: skip


def _quotient(above: Figure | None, below: Figure | None) -> Figure | None:
    if above is None or below is None or below.median <= 0:
        return None
    return Figure(*(value / below.median for value in (above.median, above.low, above.high)))
