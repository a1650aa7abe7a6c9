"""OpenID Connect: ID token and user information, believed only when every check holds.

OpenID Connect Core 1.0 sections 3.1.3.7 (ID token), 5.3.2 (user information) and 12.2 (refresh), and
RP-Initiated Logout 1.0.
"""

from __future__ import annotations

import hmac
import math
import time
from typing import Any
from urllib.parse import urlencode

from ..errors import GateError
from ..outbound import Outbound, build
from ..providers import Provider, fill, placeholders_in
from ..records import Token
from ..strict_json import StrictJSONError
from . import dpop, jose
from .client_auth import client_secret
from .discovery import Directory
from .paths import account_id, look_up
from .tokens import ProfileRefused, misbehaved

#: Seconds that the provider's clock may differ from ours.
SKEW = 60
#: Seconds; an ID token issued longer ago is not the answer to a code that was just redeemed.
MAX_AGE_OF_ID_TOKEN = 3600
#: Seconds that an ID token may be good for; one for ever is a defect of whoever signs.
MAX_LIFETIME_OF_ID_TOKEN = 366 * 86400
_LATEST = 2**53


async def verify(directory: Directory, provider: Provider, token: str) -> jose.Verified:
    """Check a token's signature with the provider's keys, looking for new ones once.

    Raises `TokenRefused`, or `GateError` 503 when the keys cannot be had: never "valid" without keys.
    """
    algorithms = [provider.id_token_signed_response_alg or "RS256"]
    # Refused before anything is fetched: a token must not be able to cause requests.
    header = jose.header_of(token)
    if header.get("alg") not in algorithms:
        return jose.verify(token, algorithms, [])
    if algorithms[0].startswith("HS"):
        return jose.verify(token, algorithms, [], client_secret(provider), header)
    try:
        return jose.verify(token, algorithms, await directory.keys(provider), header=header)
    except jose.UnknownKey:
        keys = await directory.keys(provider, refetch=True)
        return jose.verify(token, algorithms, keys, header=header)


async def validate_id_token(
    directory: Directory,
    provider: Provider,
    token: str,
    *,
    nonce: str,
    access_token: str = "",
    now: float | None = None,
) -> dict[str, Any]:
    """The claims of the ID token of a token answer. Raises `GateError` 502, 503.

    `now` is Unix time in seconds. The message of a refusal never repeats a claim.
    """
    moment = time.time() if now is None else now
    try:
        verified = await checked_id_token(directory, provider, token, nonce=nonce, now=moment)
        check_at_hash(verified, access_token)
    except jose.TokenRefused as error:
        raise misbehaved(provider, f"the ID token is refused: {error}") from None
    return verified.claims


async def checked_id_token(
    directory: Directory, provider: Provider, token: str, *, nonce: str | None, now: float
) -> jose.Verified:
    """An ID token of which everything holds but `at_hash`, which needs its access token.

    With `nonce` None the token must not have one. Raises `TokenRefused`, and `GateError` 503.
    """
    verified = await verify(directory, provider, token)
    claims = verified.claims
    check_claims(provider, claims, now)
    received = claims.get("nonce")
    if nonce is None:
        if received is not None:
            raise jose.TokenRefused("it has a nonce, which was not given beside it")
    elif not isinstance(received, str) or not hmac.compare_digest(
        received.encode("utf-8", "replace"), nonce.encode("utf-8", "replace")
    ):
        raise jose.TokenRefused("its nonce is not the one of this sign-in")
    _check_auth_time(provider, claims, now)
    return verified


def identity_of(provider: Provider, claims: dict[str, Any]) -> str:
    """What a subject is unique within: the issuer as configured, or the token's own where one
    configuration serves many tenants."""
    if provider.issuer_template and claims["iss"] not in provider.issuer_aliases:
        return str(claims["iss"])
    return provider.identity


def check_claims(provider: Provider, claims: dict[str, Any], now: float) -> None:
    """What every ID token of this provider for this client must say. Raises `TokenRefused`."""
    if "events" in claims:
        raise jose.TokenRefused("it is a logout token")
    check_token(provider, claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or account_id(subject) is None:
        raise jose.TokenRefused("its sub is missing, empty, too long or not text")
    for name, allowed in provider.required_claims.items():
        value = claims.get(name)
        values = value if isinstance(value, list) else [value]
        if not any(isinstance(item, str) and item in allowed for item in values):
            raise jose.TokenRefused(f"its claim {name} is not one of those that are allowed")


def check_token(provider: Provider, claims: dict[str, Any], now: float) -> None:
    """Issuer, audience and times: what ID tokens and logout tokens share. Raises `TokenRefused`."""
    _check_issuer(provider, claims)
    _check_audience(provider, claims)
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires + SKEW <= now:
        raise jose.TokenRefused("it has expired")
    if expires - MAX_LIFETIME_OF_ID_TOKEN > now:
        raise jose.TokenRefused("its exp is too far ahead")
    if issued - SKEW > now:
        raise jose.TokenRefused("it was issued in the future")
    if issued + MAX_AGE_OF_ID_TOKEN <= now:
        raise jose.TokenRefused("it was issued too long ago")
    if "nbf" in claims and _time(claims, "nbf") - SKEW > now:
        raise jose.TokenRefused("it is not valid yet")


def _check_issuer(provider: Provider, claims: dict[str, Any]) -> None:
    issuer = claims.get("iss")
    accepted = [provider.issuer, *provider.issuer_aliases]
    if provider.issuer_template:
        values = {
            name: claims[name]
            for name in placeholders_in(provider.issuer_template)
            if isinstance(claims.get(name), str) and claims[name].replace("-", "").isalnum()
        }
        if len(values) == len(set(placeholders_in(provider.issuer_template))):
            accepted.append(fill(provider.issuer_template, values))
    if not isinstance(issuer, str) or issuer not in accepted:
        raise jose.TokenRefused("its iss is not the provider's issuer")


def _check_audience(provider: Provider, claims: dict[str, Any]) -> None:
    audience = claims.get("aud")
    # Another audience beside ours is one that we do not trust (rule 3), so there must be none.
    if audience != provider.client_id and audience != [provider.client_id]:
        raise jose.TokenRefused("its aud is not this client alone")
    if "azp" in claims and claims["azp"] != provider.client_id:
        raise jose.TokenRefused("its azp is another client")


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise jose.TokenRefused(f"its {name} is missing or not a number")
    number = float(value)
    if not math.isfinite(number) or not 0 <= number <= _LATEST:
        raise jose.TokenRefused(f"its {name} is out of range")
    return number


def _check_auth_time(provider: Provider, claims: dict[str, Any], now: float) -> None:
    if provider.max_age is None:
        return
    if _time(claims, "auth_time") + provider.max_age + SKEW < now:
        raise jose.TokenRefused("its auth_time is older than max_age allows")


def check_at_hash(verified: jose.Verified, access_token: str) -> None:
    """Whether the ID token came with this access token (section 3.1.3.8), where it says so. Raises
    `TokenRefused`."""
    given = verified.claims.get("at_hash")
    if given is None:
        return
    expected = jose.half_hash(access_token, str(verified.header["alg"]))
    # An algorithm without a known hash fails closed.
    if (
        expected is None
        or not isinstance(given, str)
        or not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
    ):
        raise jose.TokenRefused("its at_hash does not fit the access token")


async def user_information(
    directory: Directory,
    outbound: Outbound,
    provider: Provider,
    token: Token,
    subject: str | None,
) -> dict[str, Any]:
    """The user information of the same subject (section 5.3); of whom the token is of for None.

    Raises `GateError` 502.
    """
    answer = await dpop.call(
        outbound, provider, lambda: build(provider.profile_method, provider.userinfo_endpoint), token
    )
    if not answer.ok:
        raise ProfileRefused(provider, "the user information", answer.status)
    content_type = str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower()
    try:
        if content_type == "application/jwt" or provider.userinfo_signed_response_alg:
            claims = await _signed_user_information(directory, provider, answer.body)
        else:
            claims = answer.json_object()
    except StrictJSONError as error:
        raise misbehaved(provider, f"the user information cannot be read: {error}") from None
    if subject is not None and subject_of(provider, claims) != subject:
        raise misbehaved(provider, "the user information is of another subject than the ID token")
    return claims


def subject_of(provider: Provider, claims: dict[str, Any]) -> str | None:
    """Whom user information is of, in the words of the ID token's `sub`; None when it does not say."""
    path = provider.profile.get("id", "sub")
    found = claims.get("sub") if path == "sub" or "sub" in claims else None
    if found is None and isinstance(path, str) and path != "sub":
        # A profile address that is not OpenID Connect's own names the subject its own way.
        found = account_id(look_up(claims, path))
    return found if isinstance(found, str) else None


async def _signed_user_information(
    directory: Directory, provider: Provider, body: bytes
) -> dict[str, Any]:
    algorithm = provider.userinfo_signed_response_alg or "RS256"
    try:
        token = body.decode("ascii").strip()
        header = jose.header_of(token)
        if header.get("alg") != algorithm:
            raise jose.TokenRefused("signed in another way than configured")
        verified = jose.verify(
            token, [algorithm], await directory.keys(provider), client_secret(provider)
        )
        _check_issuer(provider, verified.claims)
        _check_audience(provider, verified.claims)
    except (jose.TokenRefused, UnicodeDecodeError):
        raise misbehaved(provider, "the signed user information is refused") from None
    return verified.claims


def end_session_url(
    provider: Provider, *, id_token: str, post_logout_redirect_uri: str, state: str
) -> str | None:
    """Where the browser goes to end the session at the provider too, or None where there is no way."""
    if not provider.end_session_endpoint:
        return None
    values = {
        **provider.placeholders,
        "client_id": provider.client_id,
        "id_token": id_token,
        "post_logout_redirect_uri": post_logout_redirect_uri,
        "state": state,
    }
    template = provider.end_session_params or {
        "id_token_hint": "{id_token}",
        "client_id": "{client_id}",
        "post_logout_redirect_uri": "{post_logout_redirect_uri}",
        "state": "{state}",
    }
    query = {name: fill(text, values) for name, text in template.items()}
    query = {name: value for name, value in query.items() if value}
    separator = "&" if "?" in provider.end_session_endpoint else "?"
    return f"{provider.end_session_endpoint}{separator}{urlencode(query)}"


def require_id_token(provider: Provider, token: str) -> str:
    """The ID token of a token answer; OpenID Connect always has one (section 3.1.3.3)."""
    if not token:
        raise GateError(
            "provider_misbehaved",
            f"{provider.title}: the token answer has no id_token; is openid among the scopes?",
            provider=provider.name,
        )
    return token
