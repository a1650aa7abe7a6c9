"""Whole handlers that call a service: by hand with a pooled client, ours, Authlib's, Flask-Dance's.

Each gets the visitor's token from where its package keeps it: ours from the store (SQLite), the others
from the framework's cookie session, as their documentation shows.
"""

from __future__ import annotations

import os
import ssl
import time
from contextlib import ExitStack
from typing import Any

import httpx2

import oauthgate

from .apps import SIGNING_KEY, Place
from .driver import AsgiDriver, WsgiDriver
from .measure import Batch, Subject
from .peers import peer
from .site import ACCESS_TOKEN, cookie_header, make_config, make_link, seed, service

TOKEN = {
    "access_token": ACCESS_TOKEN,
    "token_type": "Bearer",
    "refresh_token": "R" * 43,
    "expires_in": 30 * 86400,
    "expires_at": int(time.time()) + 30 * 86400,
}
BY_HAND = "by hand: pooled httpx2, constant token"
BY_HAND_SESSION = "by hand: pooled httpx2, token in the cookie session"
OURS = "oauthgate"
AUTHLIB, AUTHLIB_TUNED = "Authlib, as documented", "Authlib, tuned (one TLS context)"
FLASK_DANCE = "Flask-Dance"


def _registration(url: str) -> dict[str, Any]:
    return {
        "client_id": "client",
        "client_secret": "s" * 32,
        "access_token_url": f"{url}/0/token",
        "authorize_url": f"{url}/0/authorize",
        "api_base_url": f"{url}/0/api/",
    }


def authlib_starlette(url: str, tuned: bool) -> Any:
    """A client of Authlib's registry for Starlette."""
    found = peer("authlib.integrations.starlette_client").OAuth()
    options = {"client_kwargs": {"verify": ssl.create_default_context()}} if tuned else {}
    return found.register("service", **_registration(url), **options)


def _config(place: Place, name: str, url: str) -> tuple[dict[str, Any], str]:
    """Our site on SQLite, and the cookie of a visitor."""
    scheme = url.partition(":")[0]
    config = make_config(f"sqlite:///{place.folder}/{name}-{scheme}.db", api=url, services=3)
    links = [make_link(service(number), "1", time.time()) for number in range(3)]
    return config, cookie_header(seed(config, links)[0])


# -- Starlette


def _starlette(page: Any, session: bool = False) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def sign_in(request: Request) -> PlainTextResponse:
        request.session["token"] = TOKEN
        return PlainTextResponse("signed in")

    found = [Middleware(SessionMiddleware, secret_key=SIGNING_KEY)] if session else []
    return Starlette(routes=[Route("/page", page), Route("/sign-in", sign_in)], middleware=found)


def _signed_in(driver: AsgiDriver | WsgiDriver) -> str:
    pairs = driver.get("/sign-in").cookies().items()
    return "; ".join(f"{name}={value}" for name, value in pairs)


def _starlette_subject(name: str, url: str, place: Place) -> Subject:
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    def make(stack: ExitStack) -> Batch:
        if name == OURS:

            async def page(request: Request) -> JSONResponse:
                answer = await request.state.services[service(0)].get("me")
                return JSONResponse(answer.json())

            config, cookie = _config(place, "starlette", url)
            app = _starlette(page)
            oauthgate.install(app, config)
            return AsgiDriver(app, stack).batch([cookie])
        if name in (BY_HAND, BY_HAND_SESSION):
            client = httpx2.AsyncClient(base_url=f"{url}/0/api/", timeout=30)

            async def page(request: Request) -> JSONResponse:
                token = ACCESS_TOKEN if name == BY_HAND else request.session["token"]["access_token"]
                answer = await client.get("me", headers={"Authorization": f"Bearer {token}"})
                return JSONResponse(answer.json())

            driver = AsgiDriver(_starlette(page, session=name == BY_HAND_SESSION), stack)
            stack.callback(lambda: driver.runner.run(client.aclose()))
        else:
            registered = authlib_starlette(url, name == AUTHLIB_TUNED)

            async def page(request: Request) -> JSONResponse:
                answer = await registered.get("me", token=request.session["token"])
                return JSONResponse(answer.json())

            driver = AsgiDriver(_starlette(page, session=True), stack)
        return driver.batch([_signed_in(driver) if name != BY_HAND else ""])

    return Subject(name, make)


# -- Flask


def _flask(page: Any) -> Any:
    from flask import Flask, session

    app = Flask("bench")
    app.secret_key = SIGNING_KEY

    @app.get("/sign-in")
    def sign_in() -> str:
        session["token"] = session["service_oauth_token"] = TOKEN
        return "signed in"

    app.get("/page")(page)
    return app


def _flask_subject(name: str, url: str, place: Place) -> Subject:
    from flask import request, session

    def make(stack: ExitStack) -> Batch:
        if name == OURS:

            def page() -> Any:
                state: Any = request.state  # type: ignore[attr-defined] # `install` adds it
                return state.services[service(0)].get("me").json()

            config, cookie = _config(place, "flask", url)
            app = _flask(page)
            oauthgate.install(app, config)
            return WsgiDriver(app, stack).batch([cookie])
        if name in (BY_HAND, BY_HAND_SESSION):
            client = stack.enter_context(httpx2.Client(base_url=f"{url}/0/api/", timeout=30))

            def page() -> Any:
                token = ACCESS_TOKEN if name == BY_HAND else session["token"]["access_token"]
                return client.get("me", headers={"Authorization": f"Bearer {token}"}).json()

            app = _flask(page)
        elif name == AUTHLIB:
            oauth = peer("authlib.integrations.flask_client").OAuth()
            oauth.register("service", **_registration(url))

            def page() -> Any:
                return oauth.service.get("me", token=session["token"]).json()

            app = _flask(page)
            oauth.init_app(app)
        else:
            consumer = peer("flask_dance.consumer")
            os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # it refuses http even on loopback
            fields = _registration(url)
            blueprint = consumer.OAuth2ConsumerBlueprint(
                "service",
                __name__,
                client_id=fields["client_id"],
                client_secret=fields["client_secret"],
                base_url=fields["api_base_url"],
                token_url=fields["access_token_url"],
                authorization_url=fields["authorize_url"],
            )

            def page() -> Any:
                return blueprint.session.get("me").json()

            app = _flask(page)
            app.register_blueprint(blueprint, url_prefix="/login")
        driver = WsgiDriver(app, stack)
        return driver.batch([_signed_in(driver) if name != BY_HAND else ""])

    return Subject(name, make)


def subjects(framework: str, url: str, place: Place) -> list[Subject]:
    """The handlers of "starlette" or "flask"; the first is the one written by hand."""
    if framework == "starlette":
        names = [BY_HAND, BY_HAND_SESSION, OURS, AUTHLIB, AUTHLIB_TUNED]
        return [_starlette_subject(name, url, place) for name in names]
    names = [BY_HAND, BY_HAND_SESSION, OURS, AUTHLIB, FLASK_DANCE]
    return [_flask_subject(name, url, place) for name in names]
