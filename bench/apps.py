"""The applications of the request part, by name: the same for a call in process and under a server.

Each shows one small page and finds out who the visitor is in the way that its package documents. A
peer's visitor signs in at `/sign-in`, which puts an id of 22 characters and a name into the session;
ours is written into the store (`site.seed`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import oauthgate
from oauthgate.config import GateTable

from .backends import store_missing
from .driver import AsgiDriver, WsgiDriver
from .measure import Missing
from .peers import peer
from .site import cookie_header, fill_sqlite, make_config, seed, unsealed

VISITOR = {"user": "u" * 22, "name": "Ada Lovelace"}
SIGNING_KEY = "peers-sign-with-this-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Place:
    """Where stores are: a folder, and the URLs of the servers or why there are none."""

    folder: Path
    redis: str = ""
    postgres: str = ""
    without: tuple[tuple[str, str], ...] = ()

    def server(self, name: str) -> str:
        """The URL of a store server. Raises `Missing`."""
        url = self.redis if name == "redis" else self.postgres
        if not url:
            raise Missing(dict(self.without).get(name, f"no {name} was started"))
        return url


@dataclass(frozen=True, slots=True)
class App:
    """An application: its name in the tables, and how it is made. `kind` is "asgi" or "wsgi".

    `store` and `links` describe ours; `signs_in` says that a visitor's cookie comes from `/sign-in`.
    """

    name: str
    kind: str
    make: Callable[[Place, App], Any]
    store: str = ""
    links: int = 0
    users: int = 1
    sealed: bool = True
    near_cache: str = ""
    signs_in: bool = False
    served: bool = True

    def cookies(self, place: Place, driver: AsgiDriver | WsgiDriver) -> list[str]:
        """The `Cookie` headers of visitors who are signed in; an empty one for nobody."""
        if self.signs_in:
            answer = driver.get("/sign-in")
            assert answer.status == 200, answer.body
            return ["; ".join(f"{name}={value}" for name, value in answer.cookies().items())]
        if not self.links:
            return [""]
        config = gate_config(place, self)
        if self.users == 1:
            found = seed(config, self.links)
        elif self.sealed:
            found = fill_sqlite(config, self.users, self.links, self.users)
        else:
            with unsealed():
                found = fill_sqlite(config, self.users, self.links, self.users)
        return [cookie_header(value) for value in found]


def gate_config(place: Place, app: App) -> dict[str, Any]:
    """The configuration of one of our applications. Raises `Missing` without its store."""
    name = "".join(each if each.isalnum() else "-" for each in app.name)
    url = {
        "": f"memory:{name}",
        "memory": f"memory:{name}",
        "sqlite": f"sqlite:///{place.folder / name}.db",
    }.get(app.store)
    if url is None:
        url = place.server(app.store)
        problem = store_missing(url)
        if problem:
            raise Missing(problem)
    config = make_config(url, services=max(3, app.links))
    if app.near_cache:
        if "near_cache" not in GateTable.__struct_fields__:
            raise Missing("this oauthgate has no near_cache")
        config["oauthgate"]["near_cache"] = app.near_cache
    return config


# -- Starlette


def _starlette(page: Any, middleware: list[Any] | None = None) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def sign_in(request: Request) -> PlainTextResponse:
        request.session.update(VISITOR)
        return PlainTextResponse("signed in")

    routes = [Route("/page", page), Route("/sign-in", sign_in)]
    return Starlette(routes=routes, middleware=middleware or [])


def _plain_page() -> Any:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return page


def _session_page() -> Any:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.session["user"])

    return page


def starlette_bare(place: Place, app: App) -> Any:
    return _starlette(_plain_page())


def starlette_gate(place: Place, app: App) -> Any:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.oauth.user_id)

    made = _starlette(page if app.links else _plain_page())
    oauthgate.install(made, gate_config(place, app))
    return made


def starlette_cookie(place: Place, app: App) -> Any:
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    return _starlette(_session_page(), [Middleware(SessionMiddleware, secret_key=SIGNING_KEY)])


def starsessions(place: Place, app: App) -> Any:
    from starlette.middleware import Middleware

    found = peer("starsessions")
    if app.store == "redis":
        store = peer("starsessions.stores.redis").RedisStore(place.server("redis") + "/1")
    else:
        store = found.InMemoryStore()
    return _starlette(
        _session_page(),
        [
            Middleware(found.SessionMiddleware, store=store, lifetime=3600, cookie_https_only=False),
            Middleware(found.SessionAutoloadMiddleware),
        ],
    )


# -- Flask


def _flask(page: Callable[[], str]) -> Any:
    from flask import Flask, session

    app = Flask("bench")
    app.secret_key = SIGNING_KEY

    @app.get("/sign-in")
    def sign_in() -> str:
        session.update(VISITOR)
        return "signed in"

    app.get("/page")(page)
    return app


def flask_bare(place: Place, app: App) -> Any:
    return _flask(lambda: "hello")


def flask_gate(place: Place, app: App) -> Any:
    from flask import request

    def page() -> str:
        state: Any = request.state  # type: ignore[attr-defined] # `install` adds it
        user_id: str = state.oauth.user_id
        return user_id

    made = _flask(page if app.links else lambda: "hello")
    oauthgate.install(made, gate_config(place, app))
    return made


def flask_session(place: Place, app: App) -> Any:
    """Flask's cookie session, or Flask-Session over `app.store`."""
    from flask import session

    def page() -> str:
        user: str = session["user"]
        return user

    made = _flask(page)
    if app.store == "filesystem":
        extension = peer("flask_session")
        cache = peer("cachelib").FileSystemCache(str(place.folder / "flask-session"))
        made.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
        extension.Session(made)
    elif app.store == "sqlalchemy":
        extension = peer("flask_session")
        database = peer("flask_sqlalchemy").SQLAlchemy()
        path = place.folder / "flask-session.db"
        made.config.update(
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}",
            SESSION_TYPE="sqlalchemy",
            SESSION_SQLALCHEMY=database,
        )
        database.init_app(made)
        extension.Session(made)
    elif app.store == "redis":
        extension = peer("flask_session")
        client = peer("redis").Redis.from_url(place.server("redis") + "/2")
        made.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
        extension.Session(made)
    return made


# -- Django


def _django(place: Place, middleware: list[str], engine: str) -> Any:
    """Django with that middleware. Settings are one for the process; a handler keeps its own."""
    django = peer("django")
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.utils import override_settings

    if not settings.configured:
        settings.configure(
            SECRET_KEY=SIGNING_KEY,
            ALLOWED_HOSTS=["localhost"],
            ROOT_URLCONF="bench.django_urls",
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(place.folder / "django.db"),
                }
            },
            # A worker that keeps its connection, as the deployment guide advises.
            CONN_MAX_AGE=None,
            SESSION_COOKIE_HTTPONLY=True,
        )
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
    with override_settings(MIDDLEWARE=middleware, SESSION_ENGINE=engine):
        return WSGIHandler()


def django_bare(place: Place, app: App) -> Any:
    return _django(place, [], "django.contrib.sessions.backends.signed_cookies")


def django_sessions(place: Place, app: App) -> Any:
    return _django(
        place,
        ["django.contrib.sessions.middleware.SessionMiddleware"],
        f"django.contrib.sessions.backends.{app.store}",
    )


def django_gate(place: Place, app: App) -> Any:
    return oauthgate.WSGIGate(
        _django(place, [], "django.contrib.sessions.backends.db"), gate_config(place, app)
    )


STARLETTE, FLASK, DJANGO = "Starlette", "Flask", "Django"


def _gates(kind: str, base: str, make: Callable[[Place, App], Any]) -> list[App]:
    found = [App(f"{base} + oauthgate, anonymous", kind, make)]
    for store in ("memory", "sqlite", "redis", "postgres"):
        for links in (1, 20):
            name = f"{base} + oauthgate, {store}, {links} link{'s' * (links > 1)}"
            found.append(App(name, kind, make, store, links, served=store != "memory"))
    for store in ("redis", "postgres"):
        name = f"{base} + oauthgate, {store}, 1 link, no near cache"
        found.append(App(name, kind, make, store, 1, near_cache="0s", served=False))
    return found


ASGI: list[App] = [
    App(STARLETTE, "asgi", starlette_bare),
    *_gates("asgi", STARLETTE, starlette_gate),
    App("Starlette SessionMiddleware (cookie)", "asgi", starlette_cookie, signs_in=True),
    App("starsessions, memory", "asgi", starsessions, "memory", signs_in=True, served=False),
    App("starsessions, redis", "asgi", starsessions, "redis", signs_in=True),
]
WSGI: list[App] = [
    App(FLASK, "wsgi", flask_bare),
    *_gates("wsgi", FLASK, flask_gate),
    App("Flask session (cookie)", "wsgi", flask_session, signs_in=True),
    App("Flask-Session, filesystem", "wsgi", flask_session, "filesystem", signs_in=True),
    App("Flask-Session, SQLAlchemy on SQLite", "wsgi", flask_session, "sqlalchemy", signs_in=True),
    App("Flask-Session, redis", "wsgi", flask_session, "redis", signs_in=True),
]
DJANGO_APPS: list[App] = [
    App(DJANGO, "wsgi", django_bare),
    App("Django + oauthgate, sqlite, 1 link", "wsgi", django_gate, "sqlite", 1),
    App("Django sessions, signed cookie", "wsgi", django_sessions, "signed_cookies", signs_in=True),
    App("Django sessions, SQLite", "wsgi", django_sessions, "db", signs_in=True),
]

#: Variants of the signed-in request on SQLite that only the goals ask for.
_SQLITE = App("oauthgate, 1 link", "asgi", starlette_gate, "sqlite", 1)
VARIANTS: list[App] = [
    _SQLITE,
    replace(_SQLITE, name="sealing off", sealed=False),
    replace(_SQLITE, name="4,096 visitors by turns", users=4096),
    replace(_SQLITE, name="4,096 visitors by turns, sealing off", users=4096, sealed=False),
]


def served(name: str, place: Place) -> Any:
    """The application of that name, for a server's process."""
    (found,) = [app for app in [*ASGI, *WSGI] if app.name == name]
    return found.make(place, found)


def from_environment() -> Any:
    """What `bench.served` serves: the environment says which application, and where its stores are."""
    place = Place(
        Path(os.environ["BENCH_FOLDER"]),
        os.environ.get("BENCH_REDIS", ""),
        os.environ.get("BENCH_POSTGRES", ""),
    )
    return served(os.environ["BENCH_APP"], place)
