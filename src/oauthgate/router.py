"""The gate's own routes: path, method, handler; and front ends of other origins.

Everything below the prefix is answered here, whatever a client sends: an exception that got out would be
a defect.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from .answers import COMMON
from .cookies import set_cookie
from .errors import GateError
from .gate import Gate
from .messages import Request, Response
from .pages import STYLESHEET_PATH
from .routes import account, callback, provider_logout, session, start
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
    "/check": {"GET": session.check},
}
#: Those of a provider: the segment after its name → method → handler.
PROVIDER_ROUTES: dict[str, dict[str, ProviderRoute]] = {
    "login": {"GET": start.login, "POST": start.login},
    "link": {"GET": start.link_page, "POST": start.link},
    "callback": {"GET": callback.callback, "POST": callback.callback},
    "unlink": {"POST": account.unlink},
    "account": {"POST": account.describe},
    "backchannel-logout": {"POST": provider_logout.backchannel},
    "frontchannel-logout": {"GET": provider_logout.frontchannel},
}
#: What a page of an allowed origin may call with credentials.
_CORS_METHODS = "GET, POST"
_CORS_HEADERS = "Authorization, Content-Type, X-CSRF-Token"


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
    if context is not None:
        _allow_origin(context, answer)
    if request.method == "HEAD":
        answer.body = b""
    return answer


def _changes(request: Request) -> bool:
    """Whether a request to one of the routes may have changed what the store holds of its visitor."""
    return request.method == "POST" or request.path.endswith("/callback")


def _changed(gate: Gate, site: Site) -> str:
    name = site.cookie_name + gate.after_change.removeprefix(gate.config.cookie).removesuffix("=")
    return set_cookie(name, "1", secure=site.secure, max_age=math.ceil(gate.vault.near) + 1)


async def _route(context: Context) -> Response:
    request = context.request
    if request.path == STYLESHEET_PATH and request.method in ("GET", "HEAD"):
        return Response(200, list(context.gate.pages.stylesheet_headers), context.gate.pages.stylesheet)
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
        return _preflight(list(methods))
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


def _preflight(methods: list[str]) -> Response:
    return Response(204, [*COMMON, ("Allow", ", ".join(sorted([*methods, "OPTIONS"])))])


def _allow_origin(context: Context, answer: Response) -> None:
    """Credentials for exactly the configured origins, and no word to any other."""
    origins = context.request.values("origin")
    if len(origins) != 1 or origins[0] not in context.gate.config.allowed_origins:
        return
    answer.headers.append(("Access-Control-Allow-Origin", origins[0]))
    answer.headers.append(("Access-Control-Allow-Credentials", "true"))
    if context.request.method == "OPTIONS":
        answer.headers.append(("Access-Control-Allow-Methods", _CORS_METHODS))
        answer.headers.append(("Access-Control-Allow-Headers", _CORS_HEADERS))
        answer.headers.append(("Access-Control-Max-Age", "600"))
