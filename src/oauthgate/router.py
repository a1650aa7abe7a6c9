"""The gate's own routes: path, method, handler.

Everything below the prefix is answered here, whatever a client sends: an exception that got out would be
a defect.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from . import cors
from .cookies import set_cookie
from .errors import GateError
from .gate import Gate
from .messages import Request, Response
from .pages import STYLESHEET_PATH
from .routes import (
    account,
    callback,
    check,
    end_session,
    handover,
    popup,
    provider_logout,
    session,
    start,
)
from .routes.context import Context
from .site import Site

Route = Callable[[Context], Awaitable[Response]]
ProviderRoute = Callable[[Context, str], Awaitable[Response]]

#: The routes of the gate: path below the prefix → method → handler.
ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": account.account},
    "/session": {"GET": session.show},
    "/session/refresh": {"POST": session.refresh},
    "/logout": {"POST": session.logout},
    "/providers": {"GET": session.providers},
    "/check": {"GET": check.check},
    "/jwks.json": {"GET": session.jwks},
    "/popup": {"GET": popup.popup},
    "/end-session": {"GET": end_session.end_session},
}
#: Those of a provider: the segment after its name → method → handler.
PROVIDER_ROUTES: dict[str, dict[str, ProviderRoute]] = {
    "login": {"GET": start.login, "POST": start.login},
    "link": {"GET": start.link_page, "POST": start.link},
    "callback": {"GET": callback.callback, "POST": callback.callback},
    "unlink": {"POST": account.unlink},
    "account": {"POST": account.describe},
    "token": {"POST": handover.token},
    "backchannel-logout": {"POST": provider_logout.backchannel},
    "frontchannel-logout": {"GET": provider_logout.frontchannel},
}


async def handle(gate: Gate, request: Request, mount: str) -> Response:
    """Answer a request under the prefix. Never raises for anything a client or provider does."""
    context: Context | None = None
    try:
        site = gate.site(request.scheme, request.header("host"), mount)
        context = Context(gate, request, site)
        answer = await _route(context)
        if gate.vault.near and answer.status < 400 and _changes(request):
            answer.headers.append(("Set-Cookie", _changed(gate, site)))
    except GateError as error:
        answer = gate.error(request, context.site if context else None, error)
    cors.share(request, gate.config.allowed_origins, answer)
    if request.method == "HEAD":
        answer.body = b""
    return answer


def _changes(request: Request) -> bool:
    """Whether a request to one of the routes may have changed what the store holds of its visitor.

    A hand-over has no visitor yet: its token is new, so nobody has anything kept for it.
    """
    if request.path.endswith("/token"):
        return False
    return request.method == "POST" or request.path.endswith("/callback")


def _changed(gate: Gate, site: Site) -> str:
    name = site.cookie_name + gate.after_change.removeprefix(gate.config.cookie).removesuffix("=")
    return set_cookie(name, "1", secure=site.secure, max_age=math.ceil(gate.vault.near) + 1)


async def _route(context: Context) -> Response:
    request = context.request
    if request.path == STYLESHEET_PATH and request.method in ("GET", "HEAD"):
        return Response(200, list(context.gate.pages.stylesheet_headers), context.gate.pages.stylesheet)
    script = context.gate.pages.scripts.get(request.path)
    if script is not None and request.method in ("GET", "HEAD"):
        return Response(*script.answer(request.query, ",".join(request.values("if-none-match"))))
    methods: dict[str, Route] | dict[str, ProviderRoute] | None
    methods = ROUTES.get(request.path or "/")
    name = ""
    if methods is None:
        _, _, rest = request.path.partition("/")
        name, _, action = rest.partition("/")
        methods = PROVIDER_ROUTES.get(action)
        if methods is None:
            raise GateError("not_found", "there is no such page here")
        context.provider(name)
    if request.method == "OPTIONS":
        return cors.preflight(request, context.gate.config.allowed_origins, methods)
    # HEAD is answered only where GET changes nothing: a link scanner's HEAD must not start a flow.
    method = request.method
    if method == "HEAD" and not name:
        method = "GET"
    handler = methods.get(method)
    if handler is None:
        answer = context.error(
            GateError("method_not_allowed", f"expected {' or '.join(sorted(methods))}"),
        )
        return answer.with_header("Allow", ", ".join(sorted(methods)))
    # Which of the two tables a handler came from, and so what it takes, goes with `name`.
    if name:
        return await handler(context, name)  # type: ignore[call-arg]
    return await handler(context)  # type: ignore[call-arg]
