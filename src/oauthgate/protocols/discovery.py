"""Provider metadata and key sets: fetched when first needed, kept for a while, never trusted blindly.

OpenID Connect Discovery 1.0, RFC 8414, RFC 7517. A provider whose metadata cannot be had is answered
with 503; the others go on. What was fetched is used past its time only within a bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from ..errors import GateError
from ..io import IO
from ..outbound import Outbound, Redirected, build
from ..providers import Provider, is_loopback, origin, plain_url
from ..strict_json import StrictJSONError
from .jose import read_key_set

if TYPE_CHECKING:
    from .joserfc_facade import Key

#: Seconds after which metadata and keys are fetched again.
FRESH = 3600.0
#: Seconds for which old ones serve while the provider is down.
STALE = 24 * 3600.0
#: Seconds between two attempts after a failure, and two key fetches at most per minute.
RETRY = 5.0
MAX_KEY_FETCHES_PER_MINUTE = 2

_FROM_METADATA = (
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "revocation_endpoint",
    "introspection_endpoint",
    "end_session_endpoint",
)


@dataclass
class _Entry:
    provider: Provider | None = None
    provider_at: float = 0.0
    keys: list[Key] = field(default_factory=list)
    keys_at: float | None = None
    key_fetches: list[float] = field(default_factory=list)
    failed_at: float = float("-inf")
    redirected: bool = False


class Directory:
    """Completes providers with what they publish about themselves."""

    def __init__(self, io: IO, outbound: Outbound) -> None:
        self._io = io
        self._outbound = outbound
        self._entries: dict[str, _Entry] = {}

    async def complete(self, provider: Provider) -> Provider:
        """`provider` with the endpoints that its issuer publishes. Raises `GateError` 503, or 502 for
        an issuer that redirects.

        Configured keys win over published ones.
        """
        if not _needs_metadata(provider):
            return provider
        entry = self._entries.setdefault(provider.name, _Entry())
        now = time.monotonic()
        if entry.provider is not None and now - entry.provider_at < FRESH:
            return entry.provider
        async with self._io.lock(f"metadata/{provider.name}"):
            now = time.monotonic()
            if entry.provider is not None and now - entry.provider_at < FRESH:
                return entry.provider
            try:
                if now - entry.failed_at < RETRY:
                    raise GateError("provider_unavailable", "it was asked a moment ago")
                metadata = await self._metadata(provider)
                entry.provider = _merge(provider, metadata)
                entry.provider_at = now
            except GateError as error:
                if now - entry.failed_at >= RETRY:
                    entry.failed_at, entry.redirected = now, isinstance(error, Redirected)
                if entry.provider is not None and now - entry.provider_at < STALE:
                    return entry.provider
                raise GateError(
                    "provider_misbehaved" if entry.redirected else "provider_unavailable",
                    f"the metadata of {provider.title} cannot be had: {error.description}",
                    provider=provider.name,
                ) from None
            return entry.provider

    async def _metadata(self, provider: Provider) -> dict[str, Any]:
        issuer = provider.issuer.rstrip("/")
        urls = [f"{issuer}/.well-known/openid-configuration"]
        if provider.protocol == "oauth2":
            # RFC 8414 section 3.1 puts the well-known part before the issuer's path.
            parts = urlsplit(issuer)
            urls.insert(
                0,
                f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}",
            )
        problem = "no metadata"
        for url in urls:
            answer = await self._outbound.send(provider, build("GET", url))
            if not answer.ok:
                problem = f"the metadata answered with status {answer.status}"
                continue
            try:
                metadata = answer.json_object()
            except StrictJSONError as error:
                problem = f"the metadata cannot be read: {error}"
                continue
            published = metadata.get("issuer")
            if published != provider.issuer and not _templated(provider, published):
                raise GateError(
                    "provider_misbehaved",
                    "the metadata names another issuer than the configuration",
                )
            return metadata
        raise GateError("provider_misbehaved", problem)

    async def keys(self, provider: Provider, *, refetch: bool = False) -> list[Key]:
        """The provider's signing keys; `refetch` asks again, at most twice a minute.

        Raises `GateError` 503 when none can be had, 502 for an address that redirects.
        """
        entry = self._entries.setdefault(provider.name, _Entry())
        if not refetch and entry.keys_at is not None and time.monotonic() - entry.keys_at < FRESH:
            return entry.keys
        before = entry.keys_at
        async with self._io.lock(f"keys/{provider.name}"):
            now = time.monotonic()
            if entry.keys_at != before and entry.keys_at is not None:
                return entry.keys  # somebody else fetched while we waited
            recent = [at for at in entry.key_fetches if now - at < 60]
            if len(recent) >= MAX_KEY_FETCHES_PER_MINUTE:
                if entry.keys_at is not None and now - entry.keys_at < STALE:
                    return entry.keys
                raise self._no_keys(provider, "asked too often")
            entry.key_fetches = [*recent, now]
            try:
                answer = await self._outbound.send(provider, build("GET", provider.jwks_uri))
                if not answer.ok:
                    raise GateError("provider_misbehaved", f"status {answer.status}")
                entry.keys = read_key_set(answer.json_object())
                entry.keys_at = now
            except (GateError, StrictJSONError) as error:
                if entry.keys_at is not None and now - entry.keys_at < STALE:
                    return entry.keys
                raise self._no_keys(provider, str(error), isinstance(error, Redirected)) from None
            return entry.keys

    @staticmethod
    def _no_keys(provider: Provider, why: str, redirected: bool = False) -> GateError:
        return GateError(
            "provider_misbehaved" if redirected else "provider_unavailable",
            f"the signing keys of {provider.title} cannot be had: {why}",
            provider=provider.name,
        )


def _needs_metadata(provider: Provider) -> bool:
    if provider.protocol == "oauth1" or not provider.issuer:
        return False
    needed = ["authorization_endpoint", "token_endpoint"]
    if provider.protocol == "oidc" and not provider.id_token_signed_response_alg.startswith("HS"):
        needed.append("jwks_uri")
    return any(not getattr(provider, name) for name in needed)


def _templated(provider: Provider, published: object) -> bool:
    # A multi-tenant provider publishes its issuer as a template, such as …/{tenantid}/v2.0.
    return bool(
        provider.issuer_template
        and isinstance(published, str)
        and published.startswith(provider.issuer_template.partition("{")[0])
    )


def _merge(provider: Provider, metadata: dict[str, Any]) -> Provider:
    changes: dict[str, Any] = {}
    for name in _FROM_METADATA:
        url = metadata.get(name)
        if getattr(provider, name) or url is None:
            continue
        if not isinstance(url, str) or not _acceptable(url, provider):
            if name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                raise GateError("provider_misbehaved", f"the published {name} is not an https URL")
            continue
        changes[name] = url
    for name in ("authorization_endpoint", "token_endpoint"):
        if not getattr(provider, name) and name not in changes:
            raise GateError("provider_misbehaved", f"the metadata has no {name}")
    if provider.authorization_response_iss_parameter_supported is None:
        changes["authorization_response_iss_parameter_supported"] = (
            metadata.get("authorization_response_iss_parameter_supported") is True
        )
    methods = metadata.get("token_endpoint_auth_methods_supported")
    if (
        provider.token_endpoint_auth_method is None
        and provider.client_secret
        and isinstance(methods, list)
        and "client_secret_basic" not in methods
        and "client_secret_post" in methods
    ):
        changes["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105 - a method
    return msgspec.structs.replace(provider, **changes)


def _acceptable(url: str, provider: Provider) -> bool:
    try:
        scheme, host, _ = origin(url)
    except ValueError:
        return False
    if "#" in url or not plain_url(url):
        return False
    # Plain http only on this machine, and only for a provider that is on this machine itself.
    return scheme == "https" or (is_loopback(host) and provider.issuer.startswith("http:"))
