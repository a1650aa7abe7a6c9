"""The local provider as an ASGI app: its routes, and what happens to each request on its way.

Owns: `LocalProvider`. Every endpoint is a plain function of the core and a completely read
request; here it is counted, delayed or broken if a test says so, and run under the lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import api, dpop, id_token, jose, oauth1, oauth2, oidc, pages, tokens
from .core import Core
from .messages import Message, Refusal, read

Handler = Callable[[Core, Message], Response]
GET, POST, BOTH = ("GET",), ("POST",), ("GET", "POST")

ROUTES: tuple[tuple[str, str, tuple[str, ...], Handler], ...] = (
    ("/.well-known/openid-configuration", "discovery", GET, oidc.discovery),
    ("/.well-known/oauth-authorization-server", "discovery", GET, oidc.discovery),
    ("/jwks", "jwks", GET, oidc.jwks),
    ("/oauth2/authorize", "authorize", BOTH, oauth2.authorize),
    ("/oauth2/token", "token", POST, tokens.token),
    ("/oauth2/revoke", "revoke", POST, tokens.revoke),
    ("/oauth2/introspect", "introspect", POST, tokens.introspect),
    ("/oauth2/userinfo", "userinfo", BOTH, oidc.userinfo),
    ("/oauth2/logout", "logout", BOTH, oidc.logout),
    ("/oauth1/request_token", "request_token", BOTH, oauth1.request_token),
    ("/oauth1/authorize", "oauth1_authorize", BOTH, oauth1.authorize),
    ("/oauth1/authenticate", "oauth1_authorize", BOTH, oauth1.authorize),
    ("/oauth1/access_token", "access_token", BOTH, oauth1.access_token),
    ("/api/me", "me", GET, api.me),
    ("/api/player", "player", GET, api.player),
    ("/api/me/player", "player", GET, api.player),
    ("/api/tweets", "tweets", BOTH, api.tweets),
    ("/api/token_info", "token_info", GET, api.token_info),
    ("/api/echo", "echo", (), api.echo),
)


class LocalProvider(Core):
    """An OAuth 1.0a, OAuth 2 and OpenID Connect provider in one ASGI app, all in memory.

    `await provider(scope, receive, send)` is the app; `running(provider)` puts it on a port.
    It is as strict as a real one: exact redirect URIs, PKCE S256, single-use codes, the
    registered client authentication method and no other, every signature checked.

    Args:
        name: short name; realm of the challenges and colour of the pages.
        title: what people read on the pages.
        clients, accounts: who may use it; two accounts, ada and grace, if none are given.
        issuer: the public address; taken from the request until it is set, `running` sets it.
        access_token_lifetime, refresh_token_lifetime, code_lifetime: seconds (None: no end).
        refresh_tokens: "always", "offline_access" (only with that scope) or "never".
        rotate_refresh_tokens: each refresh gives a new one and uses the old one up.
        reuse_revokes_family: a used refresh token that comes again ends all tokens of its grant.
        refresh_reuse_grace: seconds in which a used refresh token may still come again.
        pkce_required: an authorization request without code_challenge is an error.
        iss_parameter: the authorization response has `iss` (RFC 9207).
        scopes_supported, default_scope: what may be asked for, what is meant without `scope`.
        api_scopes: the scope an API endpoint needs, by name: {"player": …, "tweets": …}.
        id_token_signed_response_alg: RS256, PS256, ES256, EdDSA or HS256.
        claims_in_id_token: put profile and e-mail into the ID token too, not only in userinfo.
        signature_methods, timestamp_window: what OAuth 1.0a accepts; seconds either way.
        remember_consent: answer at once when the signed-in account allowed the same before.
        auto_approve: an account (username) that says yes to everything, without a page.
        dpop: understand DPoP proofs, and bind tokens to the key of a request that has one.
        dpop_required: refuse a token request without a proof.
        dpop_nonce_required: which proofs need this server's nonce: "authorization", "resource".
        introspect_any: introspection tells a client of the tokens of others too, as many servers do.
        clock: seconds since the epoch, as `time.time`.

    For tests: `count` and `received(endpoint)`, `faults`, `advance(seconds)`, `withheld_scope`
    (what accounts do not grant though it was asked for), `expire_access_tokens()`,
    `revoke_all()`, `rotate_keys()`, `rotate_dpop_nonces()`, `sign_jwt()`, `clear()`; settings may be
    changed at any time.
    """

    @functools.cached_property
    def app(self) -> Starlette:
        """Return the Starlette application behind this provider."""
        routes = [
            Route(path, _Endpoint(self, name, methods, handler))
            for path, name, methods, handler in ROUTES
        ]
        return Starlette(
            routes=[
                *routes,
                Route("/style.css", self._style),
                Route("/pictures/{account_id}.svg", self._picture),
                Route("/", self._home),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def sign_jwt(self, claims: Mapping[str, Any], *, client_id: str, typ: str = "JWT") -> str:
        """Sign any claims as an ID token for a client would be signed, faults included."""
        with self.lock:
            return id_token.sign(self, claims, self.clients[client_id], typ=typ)

    def public_jwks(self) -> dict[str, Any]:
        """Return the keys as `/jwks` publishes them, without a request."""
        with self.lock:
            algorithms = [a for a in self.id_token_algorithms() if a in jose.ASYMMETRIC]
            return self.keys.published(algorithms)

    async def _style(self, request: Request) -> Response:
        return pages.style(self)

    async def _picture(self, request: Request) -> Response:
        return pages.picture(self, request.path_params["account_id"])

    async def _home(self, request: Request) -> Response:
        return PlainTextResponse(f"{self.title}: a local provider for demonstrations and tests.\n")


class _Endpoint:
    """One endpoint on the wire. No `methods` means any."""

    def __init__(
        self, provider: LocalProvider, name: str, methods: tuple[str, ...], handler: Handler
    ) -> None:
        self.provider, self.name, self.methods, self.handler = provider, name, methods, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            message = await read(Request(scope, receive), self.name)
        except ClientDisconnect:
            return
        fault = self.provider.arrive(message)
        if fault is None:
            await self._run(message)(scope, receive, send)
            return
        response = self._run(message) if fault.after else None
        if fault.delay and await _hung_up(receive, fault.delay):
            return
        if response is None and not fault.replaces:
            response = self._run(message)
        await fault.apply(response)(scope, receive, send)

    def _run(self, message: Message) -> Response:
        allowed = self.methods
        if allowed and message.method not in (*allowed, "HEAD" if "GET" in allowed else ""):
            return PlainTextResponse("method not allowed", 405, headers={"Allow": ", ".join(allowed)})
        with self.provider.lock:
            try:
                response = self.handler(self.provider, message)
            except Refusal as refusal:
                response = refusal.response
            dpop.add_nonce(self.provider, message, response)
            return response


async def _hung_up(receive: Receive, seconds: float) -> bool:
    """Wait; True as soon as the client is gone, so that a long delay does not hold up a stop."""
    with anyio.move_on_after(seconds):
        while (await receive())["type"] != "http.disconnect":
            continue
        return True
    return False
