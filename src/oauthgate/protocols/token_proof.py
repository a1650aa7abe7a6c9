"""Whom an access token was issued to: asked of the provider itself, before the token is used.

An access token does not say which client it belongs to. Whoever took any app's token for a sign-in
would let that app's owner in as everybody who uses it (RFC 6749 section 10.16). So the provider is
asked: at the address that its table's `token_info` describes, or by introspection (RFC 7662), which is
one such description. Whatever is not a plain yes is a no.
"""

from __future__ import annotations

import hmac
import re
from typing import Any

import msgspec

from ..errors import GateError
from ..outbound import Answer, Outbound, build
from ..providers import Provider, TokenInfo, fill, placeholders_in
from ..records import Token
from ..strict_json import StrictJSONError
from . import client_auth, dpop
from .paths import look_up
from .tokens import MAX_TOKEN, TokenAnswer, granted, misbehaved

#: What may stand behind `Bearer` (RFC 6750 section 2.1): with a blank or a comma in it, two readers of
#: one header could see two tokens, one that is proved and one that is used.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer_syntax(token: str) -> bool:
    """Whether a text can be a bearer token."""
    return len(token) <= MAX_TOKEN and _BEARER.fullmatch(token) is not None


def way_of_proof(provider: Provider) -> TokenInfo | None:
    """How this provider is asked, or None where there is no way to ask it.

    `provider` is complete: an introspection endpoint may come from its metadata. Introspection needs a
    client that can prove itself (RFC 7662 section 2.1).
    """
    if provider.protocol == "oauth1" or not provider.userinfo_endpoint:
        return None
    info = provider.token_info
    if info is not None:
        expected = fill(str(info.equals), {"client_id": provider.client_id})
        # A preset may need a value for it that the table does not give.
        if placeholders_in(f"{info.url} {expected}"):
            return None
        return msgspec.structs.replace(info, equals=expected)
    if provider.introspection_endpoint and client_auth.effective_method(provider) != "none":
        return TokenInfo(
            url=provider.introspection_endpoint,
            method="POST",
            auth="client",
            equals=provider.client_id,
            params={"token": "{access_token}", "token_type_hint": "access_token"},
            active="active",
        )
    return None


async def prove(
    outbound: Outbound, provider: Provider, info: TokenInfo, access_token: str, now: float
) -> TokenAnswer:
    """The token, once its provider has said that it is good and was issued to this client.

    Raises `GateError`: 401 `invalid_token`, or 502, 503, 504 when the provider cannot tell.
    """
    answer = await _ask(outbound, provider, info, Token(access_token=access_token))
    if answer.status >= 500 or answer.status in (408, 429):
        raise GateError(
            "provider_unavailable",
            f"{provider.title} could not say whom the token was issued to (status {answer.status})",
            provider=provider.name,
        )
    if not answer.ok:
        if info.auth in ("client", "basic") and answer.status in (401, 403):
            raise misbehaved(
                provider,
                f"asked about a token, it refused this client itself (status {answer.status}): check "
                "client_id, client_secret and token_info",
            )
        raise refused(provider, f"{provider.title} does not accept it (status {answer.status})")
    try:
        fields = answer.json_object()
    except StrictJSONError as error:
        raise misbehaved(provider, f"what it says of a token cannot be read: {error}") from None
    if info.active and look_up(fields, info.active) is not True:
        raise refused(provider, f"{provider.title} says that it is not active")
    if not _is(look_up(fields, info.field), str(info.equals)):
        raise refused(provider, f"{provider.title} does not say that it was issued to this client")
    expires_at = _expiry(fields, now)
    if expires_at is not None and expires_at <= now:
        raise refused(provider, f"{provider.title} says that it has expired")
    token = Token(access_token=access_token, expires_at=expires_at, received_at=now)
    return TokenAnswer(token, granted(provider, fields.get("scope")), {})


def refused(provider: Provider, why: str) -> GateError:
    """The 401 for a token that is not to be believed."""
    return GateError("invalid_token", f"the token is refused: {why}", provider=provider.name)


async def _ask(outbound: Outbound, provider: Provider, info: TokenInfo, token: Token) -> Answer:
    values = {
        **provider.placeholders,
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "access_token": token.access_token,
    }
    params = {name: fill(text, values) for name, text in info.params.items()}
    headers: dict[str, str] = {}
    if info.auth == "client":
        client_auth.apply(provider, params, headers, provider.issuer or provider.token_endpoint)
    elif info.auth == "basic":
        headers["Authorization"] = client_auth.basic(provider)
    if info.method == "GET":
        request = build("GET", info.url, params=params, headers=headers)
    elif info.body == "json":
        request = build("POST", info.url, json=params, headers=headers)
    else:
        request = build("POST", info.url, form=params, headers=headers)
    if info.auth == "token":
        return await dpop.call(outbound, provider, lambda: request, token)
    return await outbound.send(provider, request)


def _is(found: object, expected: str) -> bool:
    """Whether a field of the answer is the value that is ours.

    A whole number is its digits, because some providers number their clients (Kakao's `app_id`); a list
    may hold that one value (an `aud`). True is no 1, and no other type is anything.
    """
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return False
    return hmac.compare_digest(str(found).encode("utf-8", "replace"), expected.encode())


def _expiry(fields: dict[str, Any], now: float) -> float | None:
    """When the token ends, by the names of RFC 7662 (`exp`) and RFC 6749 (`expires_in`)."""
    for name, since in (("exp", 0.0), ("expires_in", now)):
        value = fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
            value = int(value)  # Google writes numbers as text
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53:
            return since + value
    return None
