"""FastAPI: services and the signed-in user as dependencies, which FastAPI's own pages document.

    from oauthgate.fastapi import CurrentUser, Service

    @app.get("/now")
    async def now(user: CurrentUser, spotify: AsyncService = Service("spotify")): ...

Both say in the OpenAPI document that a route takes the session cookie, or a session token as a bearer
token. What is missing becomes the answer that gets it: a page to sign in or to link for a browser's
navigation, a 401 in JSON for everything else. `oauthgate.install` must have wrapped the application.

FastAPI is not a dependency of oauthgate: nothing but an application of its own imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, overload

try:
    from fastapi import Depends, Security
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
    from fastapi.requests import HTTPConnection
    from fastapi.security.base import SecurityBase
except ImportError as error:
    raise ImportError(
        "oauthgate.fastapi needs FastAPI, which is not installed: pip install fastapi"
    ) from error

from .clients import AsyncService, SyncService
from .errors import GateError
from .services import Services
from .visits import Visitor

__all__ = ["CurrentUser", "CurrentVisitor", "Service", "current_user", "current_visitor"]


class _Scheme(SecurityBase):
    """A security scheme for the document; who somebody is was found out by the gate already."""

    def __init__(self, name: str, model: APIKey | HTTPBearer) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        """Nothing is left to be done."""


_COOKIE = _Scheme(
    "session_cookie",
    APIKey.model_validate(
        {
            "in": APIKeyIn.cookie,
            "name": "__Host-oauthgate",
            "description": "The session cookie. Plain `oauthgate` over http on this machine.",
        }
    ),
)
_BEARER = _Scheme(
    "session_token", HTTPBearer(description="A session token, for clients that are no browser.")
)


async def current_visitor(
    connection: HTTPConnection,
    _cookie: Annotated[None, Security(_COOKIE)],
    _bearer: Annotated[None, Security(_BEARER)],
) -> Visitor:
    """The visitor, who may be anonymous."""
    visitor: Visitor = _state(connection)["oauth"]
    return visitor


async def current_user(visitor: Annotated[Visitor, Depends(current_visitor)]) -> Visitor:
    """The visitor, signed in. Raises `GateError` `login_required`, which becomes an answer."""
    if visitor.user_id is None:
        raise GateError("login_required", "sign in first")
    return visitor


#: A parameter of this type is the visitor, who may be anonymous (`user_id` is None).
CurrentVisitor = Annotated[Visitor, Depends(current_visitor)]
#: A parameter of this type is the visitor, who is signed in.
CurrentUser = Annotated[Visitor, Depends(current_user)]


@overload
def Service(name: str, *, scope: Sequence[str] = (), sync: Literal[False] = False) -> AsyncService: ...
@overload
def Service(name: str, *, scope: Sequence[str] = (), sync: Literal[True]) -> SyncService: ...


def Service(name: str, *, scope: Sequence[str] = (), sync: bool = False) -> Any:
    """The client of a linked service, as the default of a parameter or inside `Annotated`.

    `name` is a provider's, or `provider:label` for one of several accounts; `scope` is what must be
    granted. `sync` gives the blocking client, for plain `def` handlers. Without a link the handler is
    not called, and the visitor is asked to make it (`NotLinked`).
    """

    async def service(
        connection: HTTPConnection, _: Annotated[Visitor, Depends(current_visitor)]
    ) -> AsyncService | SyncService:
        services: Services[AsyncService] = _state(connection)["services"]
        if sync:
            return services.sync.require(name, scope=tuple(scope))
        return services.require(name, scope=tuple(scope))

    return Depends(service)


def _state(connection: HTTPConnection) -> dict[str, Any]:
    state: dict[str, Any] = connection.scope.get("state") or {}
    if "oauthgate" not in state:
        raise RuntimeError("no gate is around this application: call oauthgate.install(app, config)")
    return state
