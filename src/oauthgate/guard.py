"""Who may change something: the origin of a request and its CSRF token, checked in one place.

A state-changing request that is authenticated by the cookie needs both. One that carries a bearer
session token needs neither: a browser adds no such header by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from .config import Config
from .cookies import find
from .errors import GateError
from .messages import Request
from .records import Session
from .seal import Keys
from .sessions import Ticket, csrf_valid, parse_ticket
from .site import Site

#: What reads a bearer token; None for one that is not ours (`api_tokens.py`).
Reader = Callable[[str], Ticket | None]


def bearer(request: Request, read: Reader) -> Ticket | None:
    """The session token of an `Authorization: Bearer` header, when it is one of ours."""
    values = request.values("authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    return read(token.strip()) if scheme.lower() == "bearer" else None


def ticket_of(request: Request, site: Site, read: Reader) -> tuple[Ticket | None, bool]:
    """The ticket that a request carries, and whether it came as a bearer token.

    A bearer token of ours counts alone: cookie and token of two users are never merged.
    """
    token = bearer(request, read)
    if token is not None:
        return token, True
    return parse_ticket(find(request.values("cookie"), site.cookie_name)), False


def check_origin(request: Request, site: Site, config: Config) -> None:
    """Raise `GateError` 403 unless the request was made by a page of this site or an allowed origin."""
    origins = request.values("origin")
    fetch_site = request.values("sec-fetch-site")
    if len(origins) > 1 or len(fetch_site) > 1:
        raise GateError("csrf_failed", "Origin or Sec-Fetch-Site was sent more than once")
    if origins:
        if origins[0] in config.allowed_origins:
            return
        if origins[0] != site.origin:
            raise GateError(
                "csrf_failed",
                f"the request comes from another origin than {site.origin}; to allow it, add it to "
                "allowed_origins in [oauthgate]",
            )
    if fetch_site and fetch_site[0] != "same-origin":
        raise GateError("csrf_failed", "the browser says that another site made this request")
    if not origins and not fetch_site:
        raise GateError("csrf_failed", "the request has neither an Origin nor a Sec-Fetch-Site header")


def check_csrf(request: Request, fields: dict[str, str], keys: Keys, session: Session) -> None:
    """Raise `GateError` 403 unless the request carries this session's CSRF token."""
    headers = request.values("x-csrf-token")
    token = headers[0] if len(headers) == 1 else fields.get("csrf_token", "")
    if not token or not csrf_valid(keys, session, token):
        raise GateError(
            "csrf_failed",
            "the csrf token is missing or of another session; GET /session tells the right one, to "
            "be sent as the field csrf_token or the header X-CSRF-Token",
        )
