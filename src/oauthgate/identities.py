"""From a token answer to a link: whose account it is, checked, with its normalised profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from . import strict_json
from .access_rules import values_of
from .errors import GateError
from .flows import Flow
from .outbound import Outbound, build
from .protocols import dpop, oauth1, oidc
from .protocols.discovery import Directory
from .protocols.paths import Documents, account_id, normalize
from .protocols.tokens import ProfileRefused, TokenAnswer, misbehaved
from .providers import STANDARD_CLAIMS, Provider
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
    return await account_of(
        outbound, directory, provider, answer, claims, scope=flow.scope, posted=posted, now=now
    )


async def account_of(
    outbound: Outbound,
    directory: Directory,
    provider: Provider,
    answer: TokenAnswer,
    claims: dict[str, Any],
    *,
    scope: list[str],
    posted: dict[str, Any],
    now: float,
) -> Identified:
    """Whose account a token is of. `claims` are those of its ID token, which was checked; none without.

    There may be the ID token alone: then its claims are all there is. `scope` is what was granted where
    the token answer does not say. Raises `GateError` 502, 403.
    """
    main = await _main_document(outbound, directory, provider, answer, claims)
    named = {
        name: await _document(outbound, provider, url, answer.token, optional=True)
        for name, url in provider.profile_documents.items()
        if answer.token.access_token
    }
    documents = Documents(
        main, **named, token=answer.fields, claims=claims, callback=_posted_profile(posted)
    )
    if claims:
        identifier = account_id(claims["sub"])
    elif provider.protocol == "oidc":
        identifier = account_id(oidc.subject_of(provider, main))
    else:
        identifier = account_id(documents.resolve(provider.profile["id"]))
    if identifier is None:
        raise misbehaved(provider, "the profile has no usable account id")
    profile = normalize(provider, documents, identifier)
    if not answer.token.access_token:
        # The paths are those of a document that was not fetched, so what the claims call by their
        # standard names is taken as well; an address is verified only by the provider's own path.
        paths = {name: path for name, path in STANDARD_CLAIMS.items() if name != "email_verified"}
        standard = msgspec.structs.replace(provider, profile=paths)
        profile = profile.completed(normalize(standard, documents, identifier))
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
        scope=scope if answer.scope is None else answer.scope,
        claims=_held(provider, documents, named, whole=bool(answer.token.access_token)),
        linked_at=now,
    )
    sid = claims.get("sid")
    return Identified(link, sid if isinstance(sid, str) and len(sid) <= 255 else "")


def _held(
    provider: Provider, documents: Documents, named: dict[str, Any], *, whole: bool
) -> dict[str, bool]:
    """Which of the claims that `[access]` asks for hold. One is left out, as not known, when it is not
    there and the document that may have it was not seen: so nobody evades a `deny` by withholding it."""
    held = {}
    for path, value in provider.questions:
        found = documents.get(path)
        first = path.partition(".")[0]
        if first in provider.profile_documents:
            seen = named.get(first) is not None
        else:
            seen = whole or not provider.userinfo_endpoint
        if found is not None or seen:
            held[f"{path}={value}"] = value in values_of(found)
    return held


async def _main_document(
    outbound: Outbound,
    directory: Directory,
    provider: Provider,
    answer: TokenAnswer,
    claims: dict[str, Any],
) -> dict[str, Any]:
    if not provider.userinfo_endpoint or not answer.token.access_token:
        return claims or answer.fields
    if provider.protocol == "oidc":
        subject = str(claims["sub"]) if claims else None
        return await oidc.user_information(directory, outbound, provider, answer.token, subject)
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
        raise ProfileRefused(provider, "the profile", answer.status)
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
