"""Logout that begins at the provider: OpenID Connect Back-Channel and Front-Channel Logout 1.0.

Both end sessions here and nothing at the provider. The back channel is believed for its signed token;
the front channel, a frame in the provider's own page, for the session id that only the provider knows.
"""

from __future__ import annotations

import contextlib
import time

from ..answers import COMMON, empty
from ..errors import Conflict, GateError
from ..messages import Response, single
from ..protocols import jose, oidc
from ..protocols.oauth2 import authorization_origin
from ..protocols.paths import account_id
from ..providers import Provider
from ..records import ProviderSession, Session, UsedFlow
from ..stores import ABSENT
from ..vault import Change
from .context import Context

EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: Seconds for which a logout token's `jti` is remembered; an older token is refused for its age.
REMEMBERED = 2 * oidc.MAX_AGE_OF_ID_TOKEN


async def backchannel(context: Context, name: str) -> Response:
    """`POST /{provider}/backchannel-logout`: 200 when the sessions have ended, 400 for a bad token."""
    provider = _oidc_provider(context, name)
    parameters = await context.request.form_parameters()
    token = single(parameters, "logout_token")
    if not token:
        raise GateError("invalid_request", "expected the form field logout_token")
    complete = await context.gate.directory.complete(provider)
    try:
        verified = await oidc.verify(context.gate.directory, complete, token)
        claims = verified.claims
        _check(complete, verified)
    except jose.TokenRefused as error:
        raise GateError("invalid_request", f"the logout token is refused: {error}") from None
    marker = await _begin_once(context, complete, str(claims["jti"]))
    sid, subject = claims.get("sid"), claims.get("sub")
    if isinstance(subject, str):
        user_id = await context.gate.accounts.owner_of(oidc.identity_of(complete, claims), subject)
        if user_id is not None:
            await context.gate.accounts.end_sessions(
                user_id, lambda held: _of_account(held, name, subject, sid)
            )
    else:
        await _end_by_sid(context, complete, str(sid))
    await _done(context, marker)
    return empty(200)


def _check(provider: Provider, verified: jose.Verified) -> None:
    """Section 2.6. Raises `TokenRefused`."""
    claims = verified.claims
    kind = verified.header.get("typ")
    if kind is not None and str(kind).lower() not in ("logout+jwt", "jwt"):
        raise jose.TokenRefused("its typ is not that of a logout token")
    if "nonce" in claims:
        raise jose.TokenRefused("it has a nonce, as only ID tokens have")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise jose.TokenRefused("its events do not name a back-channel logout")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 255:
        raise jose.TokenRefused("its jti is missing or not text")
    if not any(account_id(claims.get(name)) for name in ("sub", "sid")):
        raise jose.TokenRefused("it names neither sub nor sid")
    for name in ("sub", "sid"):
        if name in claims and not isinstance(claims[name], str):
            raise jose.TokenRefused(f"its {name} is not text")
    oidc.check_token(provider, claims, time.time())


async def _begin_once(context: Context, provider: Provider, jti: str) -> str:
    """Claim a logout token by its `jti`, made mandatory here; one that was obeyed is refused.

    A token whose sessions could not be ended, because the store failed in between, may come again.
    """
    for digest in context.gate.vault.hash_keys("jti", f"{provider.identity}\x00{jti}"):
        found = await context.gate.vault.get(UsedFlow, f"flow-used/{digest}")
        if found is not None and found[0].done:
            raise GateError("invalid_request", "the logout token was used before")
    return f"flow-used/{digest}"  # the last is the one that is written


async def _done(context: Context, key: str) -> None:
    with contextlib.suppress(Conflict):
        await context.gate.vault.put(
            key, UsedFlow(done=True), expect=ABSENT, expires_at=time.time() + REMEMBERED
        )


def _of_account(session: Session, name: str, subject: str, sid: object) -> bool:
    if session.provider != name or session.account_id != subject:
        return False
    # A sid ends the one session; without one every session of the account ends.
    return not isinstance(sid, str) or session.sid == sid


async def frontchannel(context: Context, name: str) -> Response:
    """`GET /{provider}/frontchannel-logout?iss=&sid=`: a page to be framed by the provider alone."""
    provider = _oidc_provider(context, name)
    complete = await context.gate.directory.complete(provider)
    iss, sid = context.query("iss"), context.query("sid")
    if iss != complete.issuer or not sid or len(sid) > 255:
        raise GateError("invalid_request", "expected this provider's iss and the session's sid")
    await _end_by_sid(context, complete, sid)
    policy = f"default-src 'none'; base-uri 'none'; frame-ancestors {authorization_origin(complete)}"
    page = b"<!doctype html><html lang=en><title>Signed out</title><p>Signed out.</p></html>"
    headers = [*COMMON, ("Content-Type", "text/html; charset=utf-8")]
    return Response(200, [*headers, ("Content-Security-Policy", policy)], page)


async def _end_by_sid(context: Context, provider: Provider, sid: str) -> None:
    vault = context.gate.vault
    for digest in vault.hash_keys("sid", f"{provider.name}\x00{sid}"):
        found = await vault.get(ProviderSession, f"sid/{digest}")
        if found is not None:
            await context.gate.accounts.end_sessions(
                found[0].user_id,
                lambda held: held.provider == provider.name and held.sid == sid,
            )


def remembered_sid(context: Context, provider: Provider, sid: str, user_id: str) -> Change:
    """Which user a provider's session belongs to, so that its end can be obeyed by `sid` alone."""
    digest = context.gate.vault.hash_key("sid", f"{provider.name}\x00{sid}")
    until = time.time() + context.gate.config.absolute_timeout
    return Change(f"sid/{digest}", ProviderSession(user_id=user_id), expires_at=until)


def _oidc_provider(context: Context, name: str) -> Provider:
    provider = context.provider(name)
    if provider.protocol != "oidc":
        raise GateError("not_found", "this provider does not speak OpenID Connect")
    return provider
