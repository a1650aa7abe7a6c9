"""`GET /check`: what a reverse proxy asks before it lets a request through (nginx's `auth_request`).

204 lets it through and says who it is; 401 does not, and says where to send a person. With
`original_uri_header` the proxy tells which page was asked for, and `protect` decides, as it does for the
application behind a gate. That header is believed as it stands, which is right where the proxy sets it
on every such request: so it is read only when it was configured, and then it must be there.
"""

from __future__ import annotations

from urllib.parse import urlencode

from ..answers import empty, header_safe
from ..errors import GateError, NotLinked
from ..messages import Response
from ..targets import safe_target
from ..visits import link_page
from .context import Context

#: For the proxy to hand on: the user's id with a 204, where to sign in or link with a 401.
USER = "X-Oauthgate-User"
WHERE = "X-Oauthgate-Url"


async def check(context: Context) -> Response:
    """`GET /check`."""
    access, site = context.gate.config.access, context.site
    target = _asked_for(context, access.original_uri_header) if access.original_uri_header else None
    visit = await context.visit()
    user = visit.user if visit is not None else None
    try:
        if target is None or access.protected is None:
            if user is None:
                raise GateError("login_required", "sign in first")
        else:
            path = target.partition("?")[0]
            access.protected.check(user, _below(path, site.path), path)
    except NotLinked as error:
        back = safe_target(_below(target or "/", site.path), site.prefix)
        where = link_page(site, context.gate.keys, error.provider, back, error.reason, error.scope)
        return empty(401, [(WHERE, header_safe(where))])
    except GateError as error:
        if error.status != 401:
            raise
        back = safe_target(_below(target or "/", site.path), site.prefix)
        return empty(401, [(WHERE, header_safe(f"{site.url('/')}?{urlencode({'next': back})}"))])
    return empty(204, [(USER, user.id)] if user is not None else [])


def _asked_for(context: Context, name: str) -> str:
    """The path and query of the request that the proxy is deciding on. Raises `GateError` 400."""
    value = context.request.header(name)
    if value is None or not value.startswith("/"):
        raise GateError(
            "invalid_request",
            f"the header {name} must hold the path that is asked for: have the proxy set it",
        )
    return value


def _below(path: str, mount: str) -> str:
    """The path below the application's mount point, as `protect` and return targets are spelt."""
    if mount and path.startswith(mount) and path[len(mount) : len(mount) + 1] in ("", "/", "?"):
        return "/" + path[len(mount) :].lstrip("/")
    return path
