"""The hand-over: a front end that signed somebody in at the provider by itself gets a session of ours.

A native application or a single-page application posts what it holds: an access token, an ID token with
its nonce, or a code with its verifier. Nothing is believed before it is proved that it was issued to
this client (RFC 6749 section 10.16), and no user, link or session is made before that either.

No cookie is read or set, so there is no authority of the visitor's for another site to borrow; what a
site could do with tokens of its own, it must do from its own pages: a browser's request has to come from
this site or an allowed origin all the same.
"""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from .. import sessions, strict_json
from ..answers import json_answer
from ..errors import Conflict, GateError
from ..flows import own_nonce
from ..guard import check_origin
from ..identities import Identified, account_of
from ..messages import MAX_BODY, Response
from ..protocols import jose, oauth2, oidc
from ..protocols.token_proof import bearer_syntax, prove, refused, way_of_proof
from ..protocols.tokens import ProfileRefused, TokenAnswer, TokenError
from ..providers import HandOver, Provider
from ..records import Link, Token, UsedFlow
from ..stores import ABSENT
from ..telemetry import count, span
from .context import Context
from .provider_logout import remembered_sid
from .session import profile_shape, token_shape
from .used_flows import marker_of

#: The three forms by what is handed over: what goes with it, and what may.
FORMS: dict[HandOver, tuple[set[str], set[str]]] = {
    "access_token": (set(), set()),
    "id_token": ({"nonce"}, set()),
    "code": ({"code_verifier", "redirect_uri"}, {"nonce"}),
}
_EXPECTED = (
    "expected a JSON object with access_token, or with id_token and nonce, or with code, code_verifier "
    "and redirect_uri (and the nonce, where one was sent), and nothing else; each a text"
)
#: Seconds that an ID token may be old: it is handed over right after the sign-in, or it was found.
MAX_AGE = 600
#: Seconds that a code is remembered; no provider lets one live longer (RFC 6749 section 4.1.2).
CODE_LIFETIME = 20 * 60
MAX_NONCE = 255
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


async def token(context: Context, name: str) -> Response:
    """`POST /{provider}/token`: 201 for a new user, else 200, with a session token."""
    provider = context.provider(name)
    _check_caller(context)
    given = await _body(context)
    try:
        with span("oauthgate.handover", provider=name):
            return await context.gate.io.shield(_sign_in(context, provider, given))
    except GateError as error:
        count("oauthgate.errors", provider=name, code=error.code)
        error.provider = error.provider or name
        raise


def _check_caller(context: Context) -> None:
    """A native application sends neither header; a browser always does, and cannot leave them out."""
    request = context.request
    if request.values("origin") or request.values("sec-fetch-site"):
        check_origin(request, context.site, context.gate.config)


async def _body(context: Context) -> dict[str, str]:
    """The members of the body, of exactly one of the forms. Raises `GateError` 400, 413, 415."""
    content_type = (context.request.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # Also what keeps other sites out: a form needs no preflight, JSON does.
        raise GateError("unsupported_media_type", "expected a body of type application/json")
    try:
        document = strict_json.loads_object(await context.request.read(MAX_BODY))
    except strict_json.StrictJSONError as error:
        raise GateError("invalid_request", f"the body: {error}; {_EXPECTED}") from None
    fits = any(
        {form, *needed} <= {*document} <= {form, *needed, *optional}
        for form, (needed, optional) in FORMS.items()
    )
    if not fits or not all(isinstance(value, str) and value for value in document.values()):
        raise GateError("invalid_request", _EXPECTED)
    return document


async def _sign_in(context: Context, provider: Provider, given: dict[str, str]) -> Response:
    gate, now = context.gate, time.time()
    form = next(form for form in FORMS if form in given)
    if form not in provider.handover:
        raise _disabled(provider, f"{form} is not in handover of its table")
    try:
        if form == "access_token":
            found = await _by_access_token(context, provider, given["access_token"], now)
        elif form == "id_token":
            found = await _by_id_token(context, provider, given["id_token"], given["nonce"], now)
        else:
            found = await _by_code(context, provider, given, now)
    except ProfileRefused as error:
        raise _profile_refused(provider, error) from None
    sid = found.sid
    ticket, user, fresh = await gate.accounts.login(
        found.link,
        sid=sid,
        beside=(lambda user_id: [remembered_sid(context, provider, sid, user_id)]) if sid else None,
    )
    count("oauthgate.logins", provider=provider.name)
    await gate.vault.tidy()
    session = sessions.find(gate.keys, user, ticket, gate.policy, now)
    if session is None:
        raise GateError("login_required", "the session ended while it was being made; start again")
    shape = token_shape(context, user.id, ticket, session, time.time())
    return json_answer(201 if fresh else 200, {**shape, "profile": profile_shape(found.link.profile)})


# -- an access token


async def _by_access_token(
    context: Context, provider: Provider, access_token: str, now: float
) -> Identified:
    gate = context.gate
    if not bearer_syntax(access_token):
        raise GateError("invalid_request", "the access_token is no bearer token (RFC 6750 section 2.1)")
    complete = await gate.directory.complete(provider)
    info = way_of_proof(complete)
    if info is None:
        raise _disabled(
            provider,
            "there is no way to prove whom an access token was issued to: give token_info with what it "
            "needs, or an introspection_endpoint and a client_secret, in its table",
        )
    if (
        complete.dpop
        or complete.issuer_template
        or complete.required_claims
        or complete.max_age is not None
    ):
        # A bound token is worth nothing without its key, which stays with the front end. Whose of many
        # tenants an account is, what is required of its claims and when its owner last signed in there
        # are told by an ID token alone.
        raise _disabled(
            provider, "its access tokens do not tell enough; hand over the code or the ID token"
        )
    answer = await prove(gate.outbound, complete, info, access_token, now)
    return await account_of(
        gate.outbound, gate.directory, complete, answer, {}, scope=[], posted={}, now=now
    )


# -- an ID token


async def _by_id_token(
    context: Context, provider: Provider, id_token: str, nonce: str, now: float
) -> Identified:
    gate = context.gate
    if provider.protocol != "oidc":
        raise _disabled(provider, "it does not speak OpenID Connect, so it has no ID tokens")
    complete = await gate.directory.complete(provider)
    claims = await _checked(context, complete, id_token, nonce, now)
    answer = TokenAnswer(Token(access_token="", received_at=now, id_token=id_token), [], {})
    found = await account_of(
        gate.outbound, gate.directory, complete, answer, claims, scope=[], posted={}, now=now
    )
    _check_address(context, complete, found.link)
    # By what is signed, not by the token's text: that can be spelt in more than one way.
    marker = marker_of("\x00".join(("id_token", found.link.identity, claims["sub"], nonce)))
    until = min(float(claims["exp"]), float(claims["iat"]) + MAX_AGE) + oidc.SKEW
    await _use_once(context, marker, until, refused(complete, "it was handed over before"))
    # Who somebody is, and nothing to call the API with: for that a handler has the account linked.
    link = msgspec.structs.replace(found.link, state="reauth_required")
    return Identified(link, found.sid)


def _check_address(context: Context, provider: Provider, link: Link) -> None:
    """An ID token without an e-mail address, which the user information would tell, evades no `deny`."""
    asked = any(
        rule.domain and rule.provider in ("", provider.name)
        for rule in context.gate.config.access.rules.deny
    )
    if asked and not link.profile.email and provider.userinfo_endpoint:
        raise GateError(
            "not_allowed",
            "the ID token has no e-mail address, which deny in [access] asks about: ask for the scope "
            "email, or hand over the code",
            provider=provider.name,
        )


async def _checked(
    context: Context,
    provider: Provider,
    id_token: str,
    nonce: str | None,
    now: float,
    access_token: str = "",
) -> dict[str, Any]:
    """The claims of an ID token that was issued to this client, now, and not in a flow of our own.

    `access_token` is the one that it came with, where it came with one.
    """
    if nonce is not None and len(nonce) > MAX_NONCE:
        raise GateError("invalid_request", f"the nonce has more than {MAX_NONCE} characters")
    try:
        verified = await oidc.checked_id_token(
            context.gate.directory, provider, id_token, nonce=nonce, now=now
        )
        if access_token:
            oidc.check_at_hash(verified, access_token)
        if str(verified.header.get("typ", "JWT")).lower() != "jwt":
            raise jose.TokenRefused("its typ is not that of an ID token")
        if float(verified.claims["iat"]) + MAX_AGE <= now:
            raise jose.TokenRefused("it was issued too long ago")
        if nonce is not None and own_nonce(context.gate.keys, nonce):
            # The ID tokens of our own sign-ins travel in the address when somebody signs out at the
            # provider: one that is found there must not sign anybody in.
            raise jose.TokenRefused("it comes from a sign-in of this site's own")
    except jose.TokenRefused as error:
        raise refused(provider, str(error)) from None
    return verified.claims


# -- a code


async def _by_code(
    context: Context, provider: Provider, given: dict[str, str], now: float
) -> Identified:
    gate = context.gate
    if provider.protocol == "oauth1" or not provider.handover_redirect_uris:
        raise _disabled(
            provider, "codes are only taken for the addresses in handover_redirect_uris of its table"
        )
    redirect_uri, code, verifier = given["redirect_uri"], given["code"], given["code_verifier"]
    if redirect_uri not in provider.handover_redirect_uris:
        raise GateError("invalid_request", "the redirect_uri is not one of handover_redirect_uris")
    if not _VERIFIER.fullmatch(verifier):
        raise GateError("invalid_request", "the code_verifier is not one (RFC 7636 section 4.1)")
    if len(code) > 8192 or not code.isprintable() or not code.isascii():
        raise GateError("invalid_request", "the code is not one (RFC 6749 appendix A.11)")
    complete = await gate.directory.complete(provider)
    marker = marker_of("\x00".join(("code", provider.name, code)))
    before = GateError("invalid_grant", "this code was handed over before; start again")
    await _use_once(context, marker, now + CODE_LIFETIME, before)
    try:
        answer = await oauth2.redeem_code(
            gate.outbound,
            complete,
            code=code,
            code_verifier=verifier,
            redirect_uri=redirect_uri,
            state="",
            now=now,
        )
    except TokenError as error:
        if error.error != "invalid_grant":
            raise
        raise GateError(
            "invalid_grant",
            f"{provider.title} refuses the code: it has expired, was used or is another client's, or "
            "code_verifier or redirect_uri are not those of its request",
        ) from None
    claims: dict[str, Any] = {}
    if complete.protocol == "oidc":
        id_token = oidc.require_id_token(complete, answer.token.id_token)
        claims = await _checked(
            context, complete, id_token, given.get("nonce"), now, answer.token.access_token
        )
    return await account_of(
        gate.outbound,
        gate.directory,
        complete,
        answer,
        claims,
        scope=complete.scope,
        posted={},
        now=now,
    )


# -- refusals


async def _use_once(context: Context, marker: str, until: float, used: GateError) -> None:
    try:
        await context.gate.vault.put(marker, UsedFlow(done=True), expect=ABSENT, expires_at=until)
    except Conflict:
        raise used from None


def _disabled(provider: Provider, why: str) -> GateError:
    return GateError(
        "handover_disabled",
        f"[providers.{provider.name}] takes no such hand-over: {why}",
        provider=provider.name,
    )


def _profile_refused(provider: Provider, error: ProfileRefused) -> GateError:
    """The API's answer to the token: what the front end can do something about, by its own code."""
    if error.answered == 401:
        return refused(provider, f"{provider.title} does not accept it for the profile")
    if error.answered == 403:
        return GateError(
            "insufficient_scope",
            f"the token may not read the profile at {provider.title}: ask for the scope, and again for "
            "consent",
            provider=provider.name,
        )
    return error
