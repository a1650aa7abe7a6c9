"""Who calls the API: a bearer token, a DPoP-bound one, or an OAuth 1.0a signature.

Owns: RFC 6750 (token in the header only; challenges of section 3), tokens bound to a key (RFC 9449
section 7), and the choice between the two protocols. A token in the query is refused by name
(RFC 9700 section 4.3.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.responses import JSONResponse

from . import dpop
from .core import Core
from .messages import NO_STORE, Message, Refusal
from .models import Account
from .signature1 import OAuth1Problem, check, is_signed
from .state import AccessToken

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Caller:
    """The account on whose behalf an API call is made, and by which client.

    `expires_at` is None for OAuth 1.0a, whose tokens have neither an expiry nor a scope.
    """

    account: Account
    client_id: str
    scope: tuple[str, ...] | None
    expires_at: float | None


def caller(core: Core, message: Message, scope: str | None = None) -> Caller:
    """Return who calls.

    Raises:
        Refusal: 401 without valid credentials, 403 when the token lacks `scope`.
    """
    if is_signed(message):
        return _signed(core, message)
    held = bearer(core, message, scope)
    account = core.accounts[held.grant.account_id]
    return Caller(account, held.grant.client_id, held.scope, held.expires_at)


def active(core: Core, value: str | None) -> AccessToken | None:
    """Return an access token if it is known, not expired and not revoked."""
    held = core.access_tokens.get(value)
    if held is None or held.revoked or held.grant.revoked or held.expires_at <= core.now():
        return None
    return held


def bearer(core: Core, message: Message, scope: str | None) -> AccessToken:
    if any(name == "access_token" for name, _ in (*message.query, *message.form)):
        raise _challenge(core, 400, "invalid_request", "send the token in the header only")
    scheme, _, value = (message.header("authorization") or "").partition(" ")
    if not scheme:
        raise _challenge(core, 401, None, "send an access token")
    held: AccessToken | None
    if core.dpop and scheme.lower() == "dpop":
        held = _bound(core, message, value.strip())
    elif scheme.lower() != "bearer" or not TOKEN.fullmatch(value.strip()):
        raise _challenge(core, 401, "invalid_token", "this is not a bearer token")
    else:
        held = active(core, value.strip())
        # RFC 9449 section 7.2: a bound token is not to be had without its proof.
        if held is None or held.jkt is not None:
            raise _challenge(core, 401, "invalid_token", "unknown, expired, revoked or bound to a key")
    if scope is not None and scope not in held.scope:
        raise _challenge(core, 403, "insufficient_scope", "the token lacks a scope", scope)
    return held


def _bound(core: Core, message: Message, value: str) -> AccessToken:
    held = active(core, value)
    if held is None or held.jkt is None:
        raise dpop.refusal(core, "invalid_token", "unknown, expired, revoked or not bound to a key")
    dpop.check_call(core, message, value, held.jkt)
    return held


def _challenge(
    core: Core, status: int, error: str | None, description: str, scope: str | None = None
) -> Refusal:
    parts = {"realm": core.name}
    if error is not None:
        parts |= {"error": error, "error_description": description}
    if scope is not None:
        parts["scope"] = scope
    value = "Bearer " + ", ".join(f'{name}="{text}"' for name, text in parts.items())
    body = {"error": error or "unauthorized", "error_description": description}
    response = JSONResponse(body, status, headers={**NO_STORE, "WWW-Authenticate": value})
    if error is None:
        response.headers.append("WWW-Authenticate", f'OAuth realm="{core.name}"')
    return Refusal(response)


def _signed(core: Core, message: Message) -> Caller:
    try:
        signed = check(
            core,
            message,
            lambda client, token: (
                held.secret
                if (held := core.oauth1_tokens.get(token)) and held.client_id == client.client_id
                else None
            ),
        )
    except OAuth1Problem as problem:
        error = {"code": problem.problem, "message": problem.advice}
        headers = {**NO_STORE, "WWW-Authenticate": f'OAuth realm="{core.name}"'}
        raise Refusal(JSONResponse({"errors": [error]}, problem.status, headers)) from problem
    held = core.oauth1_tokens.get(signed.params["oauth_token"])
    if held is None:
        raise LookupError("a token that verified a signature is gone")
    return Caller(core.accounts[held.account_id], held.client_id, None, None)
