"""Applications with a login, each as its package documents it: `/start` sends the browser away.

All use the same provider and client, an OpenID Connect login where the package has one, and the
framework's own cookie session; ours and django-allauth's are in SQLite.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import oauthgate

from .apps import SIGNING_KEY, Place
from .peers import peer
from .provider import BASE, CALLBACKS, CLIENT_ID, CLIENT_SECRET, SCOPE
from .site import SECRET


@dataclass(frozen=True, slots=True)
class Site:
    """An application with a login: its name, where a login starts, and how it is made."""

    name: str
    start: str
    make: Callable[[str, Place], Any]


def _gate_config(url: str, place: Place, name: str) -> dict[str, Any]:
    scheme = url.partition(":")[0]
    name = f"login-{name}-{scheme}"
    return {
        "oauthgate": {
            "base_url": BASE,
            "store": f"memory:{name}" if "memory" in name else f"sqlite:///{place.folder}/{name}.db",
            "secret": SECRET,
        },
        "providers": {
            "corp": {
                "issuer": url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "scope": SCOPE.split(),
            }
        },
    }


def _with_userinfo(url: str) -> str:
    # By this name the provider's discovery document has its userinfo endpoint.
    return url.replace("127.0.0.1", "localhost")


def gate_starlette(url: str, place: Place) -> Any:
    from starlette.applications import Starlette

    app = Starlette()
    oauthgate.install(app, _gate_config(url, place, "asgi"))
    return app


def gate_starlette_memory(url: str, place: Place) -> Any:
    """Nothing reaches a disk, as with the cookie sessions of the others."""
    from starlette.applications import Starlette

    app = Starlette()
    oauthgate.install(app, _gate_config(url, place, "memory"))
    return app


def gate_starlette_userinfo(url: str, place: Place) -> Any:
    from starlette.applications import Starlette

    app = Starlette()
    oauthgate.install(app, _gate_config(_with_userinfo(url), place, "userinfo"))
    return app


def gate_flask(url: str, place: Place) -> Any:
    from flask import Flask

    app = Flask("bench")
    oauthgate.install(app, _gate_config(url, place, "wsgi"))
    return app


def _authlib_options(url: str, tuned: bool) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"scope": SCOPE}
    if tuned:
        kwargs["verify"] = ssl.create_default_context()
    return {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "server_metadata_url": f"{url}/.well-known/openid-configuration",
        "client_kwargs": kwargs,
    }


def _authlib_starlette(tuned: bool) -> Callable[[str, Place], Any]:
    def make(url: str, place: Place) -> Any:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.sessions import SessionMiddleware
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        oauth = peer("authlib.integrations.starlette_client").OAuth()
        oauth.register("corp", **_authlib_options(url, tuned))

        async def start(request: Request) -> Any:
            return await oauth.corp.authorize_redirect(request, BASE + CALLBACKS[0])

        async def callback(request: Request) -> PlainTextResponse:
            token = await oauth.corp.authorize_access_token(request)
            request.session["user"] = dict(token["userinfo"])
            return PlainTextResponse("signed in")

        return Starlette(
            routes=[Route("/start", start), Route(CALLBACKS[0], callback)],
            middleware=[Middleware(SessionMiddleware, secret_key=SIGNING_KEY)],
        )

    return make


def authlib_flask(url: str, place: Place) -> Any:
    from flask import Flask, session

    app = Flask("bench")
    app.secret_key = SIGNING_KEY
    oauth = peer("authlib.integrations.flask_client").OAuth(app)
    oauth.register("corp", **_authlib_options(url, tuned=False))

    @app.get("/start")
    def start() -> Any:
        return oauth.corp.authorize_redirect(BASE + CALLBACKS[0])

    @app.get(CALLBACKS[0])
    def callback() -> str:
        token = oauth.corp.authorize_access_token()
        session["user"] = dict(token["userinfo"])
        return "signed in"

    return app


def flask_dance(url: str, place: Place) -> Any:
    from flask import Flask

    blueprint = peer("flask_dance.consumer").OAuth2ConsumerBlueprint(
        "corp",
        __name__,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        base_url=f"{url}/api/",
        token_url=f"{url}/oauth2/token",
        authorization_url=f"{url}/oauth2/authorize",
        scope=SCOPE.split(),
    )
    app = Flask("bench")
    app.secret_key = SIGNING_KEY
    app.register_blueprint(blueprint, url_prefix="/login")
    return app


def fastapi_sso(url: str, place: Place) -> Any:
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse

    generic = peer("fastapi_sso.sso.generic")
    base = peer("fastapi_sso.sso.base")

    def convert(response: dict[str, Any], session: object = None) -> Any:
        return base.OpenID(id=response["sub"], email=response.get("email"), provider="corp")

    kind = generic.create_provider(
        name="corp",
        default_scope=SCOPE.split(),
        discovery_document={
            "authorization_endpoint": f"{url}/oauth2/authorize",
            "token_endpoint": f"{url}/oauth2/token",
            "userinfo_endpoint": f"{url}/oauth2/userinfo",
        },
        response_convertor=convert,
    )
    sso = kind(CLIENT_ID, CLIENT_SECRET, BASE + CALLBACKS[0], allow_insecure_http=True)
    app = FastAPI()

    async def start() -> Any:
        async with sso:
            return await sso.get_login_redirect()

    async def callback(request: Request) -> PlainTextResponse:
        async with sso:
            user = await sso.verify_and_process(request)
        assert user.id
        return PlainTextResponse("signed in")

    # Annotations of inner functions cannot be resolved by name from outside.
    callback.__annotations__["request"] = Request
    app.get("/start", response_model=None)(start)
    app.get(CALLBACKS[0], response_model=None)(callback)
    return app


def django_allauth(url: str, place: Place) -> Any:
    """Settings are one for the process, and so is the provider: a later call changes its address."""
    django = peer("django")
    peer("allauth.socialaccount")
    peer("jwt")
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler

    application = {
        "provider_id": "corp",
        "name": "Corp",
        "client_id": CLIENT_ID,
        "secret": CLIENT_SECRET,
        "settings": {
            "server_url": f"{url}/.well-known/openid-configuration",
            "token_auth_method": "client_secret_basic",
            "fetch_userinfo": False,
        },
    }
    configured: dict[str, Any] = {
        "ROOT_URLCONF": "bench.django_login_urls",
        "INSTALLED_APPS": [
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "allauth",
            "allauth.account",
            "allauth.socialaccount",
            "allauth.socialaccount.providers.openid_connect",
        ],
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "allauth.account.middleware.AccountMiddleware",
        ],
        "AUTHENTICATION_BACKENDS": ["allauth.account.auth_backends.AuthenticationBackend"],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": ["django.template.context_processors.request"],
                },
            }
        ],
        "SOCIALACCOUNT_LOGIN_ON_GET": True,
        "SOCIALACCOUNT_STORE_TOKENS": True,
        "LOGIN_REDIRECT_URL": "/",
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
    }
    if not settings.configured:
        settings.configure(
            SECRET_KEY=SIGNING_KEY,
            ALLOWED_HOSTS=["localhost"],
            CONN_MAX_AGE=None,
            CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(place.folder / "allauth.db"),
                    "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
                }
            },
            SOCIALACCOUNT_PROVIDERS={"openid_connect": {"APPS": [application]}},
            ACCOUNT_RATE_LIMITS=False,
            **configured,
        )
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
    settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"] = [application]
    return WSGIHandler()


ASGI_LOGINS = [
    Site("oauthgate (Starlette)", "/_oauth/corp/login", gate_starlette),
    Site("oauthgate (Starlette), memory store", "/_oauth/corp/login", gate_starlette_memory),
    Site("oauthgate (Starlette), and userinfo", "/_oauth/corp/login", gate_starlette_userinfo),
    Site("Authlib on Starlette, as documented", "/start", _authlib_starlette(tuned=False)),
    Site("Authlib on Starlette, tuned (one TLS context)", "/start", _authlib_starlette(tuned=True)),
    Site("fastapi-sso (userinfo, no ID token)", "/start", fastapi_sso),
]
WSGI_LOGINS = [
    Site("oauthgate (Flask)", "/_oauth/corp/login", gate_flask),
    Site("Authlib on Flask", "/start", authlib_flask),
    Site("Flask-Dance (no ID token)", "/login/corp", flask_dance),
    Site("django-allauth", "/accounts/oidc/corp/login/", django_allauth),
]
