"""Where a token may go: its provider's own hosts, and nowhere else (RFC 9700 section 4.9.1)."""

from __future__ import annotations

from functools import lru_cache

import httpx2

from .providers import Provider, origin


def host_allowed(provider: Provider, url: httpx2.URL) -> bool:
    """Whether the provider's token may go to this URL: exact scheme, host and port."""
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        return False
    port = url.port or (443 if url.scheme == "https" else 80)
    target = (url.scheme, url.host.lower(), port)
    allowed = api_origins(provider)
    if target in allowed:
        return True
    for scheme, host, allowed_port in allowed:
        if host.startswith("*.") and (scheme, allowed_port) == (target[0], target[2]):
            if target[1].endswith(host[1:]) and target[1] != host[2:]:
                return True
    return False


def api_origins(provider: Provider) -> tuple[tuple[str, str, int], ...]:
    """Where the token may go. A bare host in `api_hosts` means https on port 443."""
    return _origins(
        api_base(provider),
        provider.userinfo_endpoint,
        tuple(provider.profile_documents.values()),
        tuple(provider.api_hosts),
    )


@lru_cache(maxsize=256)
def _origins(
    base: str, userinfo: str, documents: tuple[str, ...], hosts: tuple[str, ...]
) -> tuple[tuple[str, str, int], ...]:
    # Asked for each call, and the same for as long as the provider's table is.
    listed = [item if "://" in item else f"https://{item}" for item in hosts]
    return tuple(origin(url) for url in (base, userinfo, *documents, *listed) if url)


def api_base(provider: Provider) -> str:
    """What relative URLs of a client are relative to."""
    return provider.api_base_url or provider.issuer or ""
