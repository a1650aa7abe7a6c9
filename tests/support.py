"""What the tests share: applications of both kinds around a gate, browsers, and a local provider.

A `SiteUnderTest` is one application with a gate, reached in process: over ASGI with Starlette's test
client (one event loop in a thread of its own), over WSGI with httpx2's transport under Werkzeug's lint.
Its browsers are `httpx2.Client`s with a cookie jar each, at `http://localhost`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import msgspec
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.middleware.lint import LintMiddleware

import oauthgate
from oauthgate.gate import Gate
from oauthgate.testing import Account, Client, LocalProvider, sign_in

Kind = Literal["asgi", "wsgi"]
KINDS: list[Kind] = ["asgi", "wsgi"]
BASE = "http://localhost"
PAGE = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "sec-fetch-mode": "navigate"}
SCOPE = ["player", "tweets"]


def redirect_uri(provider: str, base: str = BASE) -> str:
    return f"{base}/_oauth/{provider}/callback"


def make_provider(base: str = BASE, **settings: Any) -> LocalProvider:
    """A local provider with a client for each of the tables of `make_config`."""
    names = ("twitter", "spotify", "corp")
    clients = [
        Client(
            client_id=f"{name}-client",
            client_secret=f"{name}-secret-{'s' * 24}",
            redirect_uris=[redirect_uri(name, base)],
            post_logout_redirect_uris=[f"{base}/"],
        )
        for name in names
    ]
    accounts = [
        Account(id="1001", username="ada", name="Ada Lovelace", email="ada@example.com"),
        Account(id="1002", username="grace", name="Grace Hopper", email="grace@example.com"),
    ]
    return LocalProvider(name="local", clients=clients, accounts=accounts, **settings)


def make_config(url: str, tmp_path: Path, base: str = BASE) -> dict[str, Any]:
    """A configuration for the local provider at `url`: twitter (OAuth 1.0a), spotify (OAuth 2), corp."""
    common = {"userinfo_endpoint": f"{url}/api/me", "api_base_url": f"{url}/api"}
    return {
        "oauthgate": {"base_url": base, "store": f"sqlite:///{tmp_path / 'gate.db'}"},
        "providers": {
            "twitter": {
                "client_id": "twitter-client",
                "client_secret": f"twitter-secret-{'s' * 24}",
                "request_token_url": f"{url}/oauth1/request_token",
                "authorization_endpoint": f"{url}/oauth1/authenticate",
                "token_endpoint": f"{url}/oauth1/access_token",
                "profile": {"id": "id", "username": "username", "name": "name"},
                **common,
            },
            "spotify": {
                "client_id": "spotify-client",
                "client_secret": f"spotify-secret-{'s' * 24}",
                "authorization_endpoint": f"{url}/oauth2/authorize",
                "token_endpoint": f"{url}/oauth2/token",
                "revocation_endpoint": f"{url}/oauth2/revoke",
                "scope": SCOPE,
                "profile": {"id": "id", "username": "username", "name": "name", "email": "email"},
                **common,
            },
            "corp": {
                "issuer": url,
                "client_id": "corp-client",
                "client_secret": f"corp-secret-{'s' * 24}",
                "scope": ["openid", "profile", "email"],
                "api_base_url": f"{url}/api",
            },
        },
    }


def starlette_app() -> Starlette:
    """`/call/{service}/{path}` calls a service, `/sync/…` blockingly, `/who` names the visitor."""

    async def call(request: Request) -> Response:
        service = request.state.services[request.path_params["service"]]
        reply = await service.request(
            request.method,
            request.path_params["path"],
            params=list(request.query_params.multi_items()),
            content=await request.body(),
            headers=_content_type(request.headers.get("content-type")),
        )
        return Response(reply.content, reply.status_code, media_type=reply.headers.get("content-type"))

    async def sync(request: Request) -> Response:
        def work() -> httpx2.Response:
            service = request.state.services.sync[request.path_params["service"]]
            reply: httpx2.Response = service.get(request.path_params["path"])
            return reply

        reply = await run_in_threadpool(work)
        return Response(reply.content, reply.status_code, media_type="application/json")

    async def require(request: Request) -> Response:
        scope = request.query_params.getlist("scope")
        return JSONResponse({"scope": request.state.services.require("spotify", scope=scope).scope})

    async def who(request: Request) -> Response:
        return JSONResponse(visitor(request.state.oauth, request.state.services))

    app = Starlette(
        routes=[
            Route("/call/{service}/{path:path}", call, methods=["GET", "POST", "PUT", "DELETE"]),
            Route("/sync/{service}/{path:path}", sync),
            Route("/require", require),
            Route("/who", who),
            Route("/", who),
        ]
    )
    return app


def flask_app() -> Flask:
    """The same routes as `starlette_app`."""
    app = Flask("under_test")

    @app.route("/call/<service>/<path:path>", methods=["GET", "POST", "PUT", "DELETE"])
    def call(service: str, path: str) -> Any:
        reply = flask_request.state.services[service].request(  # type: ignore[attr-defined]
            flask_request.method,
            path,
            params=list(flask_request.args.items(multi=True)),
            content=flask_request.get_data(),
            headers=_content_type(flask_request.content_type),
        )
        return reply.content, reply.status_code, {"content-type": reply.headers.get("content-type", "")}

    @app.route("/sync/<service>/<path:path>")
    def sync(service: str, path: str) -> Any:
        reply = flask_request.state.services.sync[service].get(path)  # type: ignore[attr-defined]
        return reply.content, reply.status_code, {"content-type": "application/json"}

    @app.route("/require")
    def require() -> Any:
        services = flask_request.state.services  # type: ignore[attr-defined]
        return {"scope": services.require("spotify", scope=flask_request.args.getlist("scope")).scope}

    @app.route("/who")
    @app.route("/")
    def who() -> Any:
        state = flask_request.state  # type: ignore[attr-defined]
        return visitor(state.oauth, state.services)

    return app


def _content_type(value: str | None) -> dict[str, str]:
    return {"content-type": value} if value else {}


def visitor(oauth: oauthgate.Visitor, services: Any) -> dict[str, Any]:
    """What a handler can see of its visitor, as JSON."""
    profile = oauth.profile
    return {
        "user_id": oauth.user_id,
        "services": sorted(services),
        "links": [f"{link.provider}:{link.account_id}" for link in oauth.links],
        "profile": None if profile is None else msgspec.to_builtins(profile),
        "csrf_token": oauth.csrf_token,
        "login_url": oauth.login_url("spotify"),
    }


class SiteUnderTest:
    """An application with a gate, in process. `gate` is the core that serves it."""

    def __init__(
        self,
        kind: Kind,
        config: dict[str, Any],
        stack: contextlib.ExitStack,
        hooks: dict[str, Callable[[oauthgate.Event], object]] | None = None,
    ) -> None:
        self.kind = kind
        self.config = config
        self._stack = stack
        self.base: str = config["oauthgate"].get("base_url") or BASE
        self.gate: Gate
        self._connect: Callable[[], httpx2.Client]
        if kind == "asgi":
            asgi_app = starlette_app()
            oauthgate.install(asgi_app, config, hooks=hooks)
            first = stack.enter_context(TestClient(asgi_app, base_url=self.base, follow_redirects=False))
            middleware: Any = asgi_app.middleware_stack
            while not isinstance(middleware, oauthgate.ASGIGate):
                inner = middleware.app
                middleware = getattr(inner, "__self__", inner)  # installed as its method
            self.asgi = middleware
            self.gate = middleware.gate
            # Every browser has its own jar, all of them share the one event loop of the first.
            portal = first.portal

            def connect() -> httpx2.Client:
                client = TestClient(asgi_app, base_url=self.base, follow_redirects=False)
                client.portal = portal
                client.headers.pop("user-agent", None)
                return client

            self._connect = connect
        else:
            wsgi_app = flask_app()
            oauthgate.install(wsgi_app, config, hooks=hooks)
            self.wsgi: oauthgate.WSGIGate = wsgi_app.wsgi_app  # type: ignore[assignment]
            self.gate = self.wsgi.gate
            stack.callback(self.wsgi.close)
            transport = httpx2.WSGITransport(app=LintMiddleware(wsgi_app))
            self._connect = lambda: httpx2.Client(transport=transport, base_url=self.base)

    def browser(self) -> httpx2.Client:
        """A new browser: an empty cookie jar, redirects not followed."""
        return self._stack.enter_context(contextlib.closing(self._connect()))

    def origin(self) -> dict[str, str]:
        """The header that a page of this site sends along with a POST."""
        return {"origin": self.base}

    def login(
        self, browser: httpx2.Client, provider: str = "spotify", account: str = "ada", next: str = "/who"
    ) -> httpx2.Response:
        """Sign in through the provider's pages; the answer to the callback."""
        started = browser.get(f"/_oauth/{provider}/login", params={"next": next})
        assert started.status_code == 303, started.text
        return browser.get(self.authorize(started.headers["location"], account))

    @staticmethod
    def authorize(location: str, account: str = "ada", *, deny: bool = False) -> str:
        """Go through the provider's page; the callback URL, not followed."""
        with httpx2.Client() as client:
            return str(sign_in(client, location, account, deny=deny))

    def csrf(self, browser: httpx2.Client) -> str:
        token = browser.get("/_oauth/session").json()["csrf_token"]
        assert isinstance(token, str)
        return token

    def post(self, browser: httpx2.Client, route: str, **fields: str) -> httpx2.Response:
        """A POST of a page of this site to one of the gate's routes, with its CSRF token."""
        data = {"csrf_token": self.csrf(browser), **fields}
        return browser.post(f"/_oauth{route}", data=data, headers={**self.origin(), **PAGE})

    def link(
        self, browser: httpx2.Client, provider: str, account: str = "ada", next: str = "/who"
    ) -> httpx2.Response:
        """Link another account through the provider's pages; the answer to the callback."""
        started = self.post(browser, f"/{provider}/link", next=next)
        assert started.status_code == 303, started.text
        return browser.get(self.authorize(started.headers["location"], account))


@contextlib.contextmanager
def site_under_test(
    kind: Kind,
    config: dict[str, Any],
    hooks: dict[str, Callable[[oauthgate.Event], object]] | None = None,
) -> Iterator[SiteUnderTest]:
    """A `SiteUnderTest`, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield SiteUnderTest(kind, config, stack, hooks)
