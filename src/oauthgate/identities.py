"""From a token answer to a link: whose account it is, checked, with its normalised profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from . import strict_json
from .errors import GateError
from .flows import Flow
from .outbound import Outbound, build
from .protocols import dpop, oauth1, oidc
from .protocols.discovery import Directory
from .protocols.paths import Documents, account_id, normalize
from .protocols.tokens import TokenAnswer, misbehaved
from .providers import Provider
from .records import MAX_RAW, Link, Token
from .strict_json import StrictJSONError


@dataclass(frozen=True, slots=True)
class Identified:
    """A link ready to be stored, and the provider's session id (OpenID Connect `sid`)."""

    link: Link
    sid: str


async def identify(
    outbound: Outbound,
    directory: Directory,
    provider: Provider,
    answer: TokenAnswer,
    *,
    flow: Flow,
    posted: dict[str, Any],
    now: float,
) -> Identified:
    """Find out whose account a token is of. Nothing is stored before every check has passed.

    Raises `GateError` 502 for an answer that does not hold, 403 for a profile that lacks a field.
    """
    claims: dict[str, Any] = {}
    if provider.protocol == "oidc":
        claims = await oidc.validate_id_token(
            directory,
            provider,
            oidc.require_id_token(provider, answer.token.id_token),
            nonce=flow.nonce,
            access_token=answer.token.access_token,
        )
    main = await _main_document(outbound, directory, provider, answer, claims)
    named = {
        name: await _document(outbound, provider, url, answer.token, optional=True)
        for name, url in provider.profile_documents.items()
    }
    documents = Documents(
        main, **named, token=answer.fields, claims=claims, callback=_posted_profile(posted)
    )
    identifier = (
        account_id(claims["sub"]) if claims else account_id(documents.resolve(provider.profile["id"]))
    )
    if identifier is None:
        raise misbehaved(provider, "the profile has no usable account id")
    profile = normalize(provider, documents, identifier)
    for name in provider.required_profile:
        if not getattr(profile, name, None):
            raise GateError(
                "missing_profile_field",
                f"{provider.title} did not give the field {name}, which this site needs; allow it "
                "when you are asked, and try again",
                provider=provider.name,
            )
    link = Link(
        provider=provider.name,
        identity=oidc.identity_of(provider, claims) if claims else provider.identity,
        account_id=identifier,
        profile=profile,
        raw=_raw(main),
        token=answer.token,
        scope=flow.scope if answer.scope is None else answer.scope,
        linked_at=now,
    )
    sid = claims.get("sid")
    return Identified(link, sid if isinstance(sid, str) and len(sid) <= 255 else "")


async def _main_document(
    outbound: Outbound,
    directory: Directory,
    provider: Provider,
    answer: TokenAnswer,
    claims: dict[str, Any],
) -> dict[str, Any]:
    if not provider.userinfo_endpoint:
        return claims or answer.fields
    if provider.protocol == "oidc":
        return await oidc.user_information(
            directory, outbound, provider, answer.token, str(claims["sub"])
        )
    document = await _document(outbound, provider, provider.userinfo_endpoint, answer.token)
    if not isinstance(document, dict):
        raise misbehaved(provider, "the profile is not a JSON object")
    return document


async def _document(
    outbound: Outbound, provider: Provider, url: str, token: Token, *, optional: bool = False
) -> Any:  # noqa: ANN401 - JSON of the provider's making
    if provider.protocol == "oauth1":
        request = build(provider.profile_method, url)
        oauth1.authorize(provider, request, token=token.access_token, token_secret=token.token_secret)
        answer = await outbound.send(provider, request)
    else:
        answer = await dpop.call(outbound, provider, lambda: build(provider.profile_method, url), token)
    if optional and 400 <= answer.status < 500:
        return None  # the scope for it was not granted: its fields are simply missing
    if not answer.ok:
        raise misbehaved(provider, f"the profile answered with status {answer.status}")
    try:
        return strict_json.loads(answer.body)
    except StrictJSONError as error:
        raise misbehaved(provider, f"the profile cannot be read: {error}") from None


def _posted_profile(posted: dict[str, Any]) -> dict[str, Any]:
    """What was posted beside the code: unsigned, so it only fills in what nothing else says."""
    try:
        return strict_json.loads_object(str(posted.get("raw", "{}")).encode())
    except StrictJSONError:
        return {}


def _raw(document: dict[str, Any]) -> bytes:
    raw = msgspec.json.encode(document)
    return raw if len(raw) <= MAX_RAW else b"{}"
