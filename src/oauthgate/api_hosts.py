"""Where a token may go: its provider's own hosts, and nowhere else (RFC 9700 section 4.9.1)."""

from __future__ import annotations

import httpx2

from .providers import Provider, origin


def host_allowed(provider: Provider, url: httpx2.URL) -> bool:
    """Whether the provider's token may go to this URL: exact scheme, host and port."""
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        return False
    port = url.port or (443 if url.scheme == "https" else 80)
    target = (url.scheme, url.host.lower(), port)
    for allowed in api_origins(provider):
        if target == allowed:
            return True
        scheme, host, allowed_port = allowed
        if host.startswith("*.") and (scheme, allowed_port) == (target[0], target[2]):
            if target[1].endswith(host[1:]) and target[1] != host[2:]:
                return True
    return False


def api_origins(provider: Provider) -> list[tuple[str, str, int]]:
    """Where the token may go. A bare host in `api_hosts` means https on port 443."""
    listed = [item if "://" in item else f"https://{item}" for item in provider.api_hosts]
    urls = [api_base(provider), provider.userinfo_endpoint, *provider.profile_documents.values()]
    return [origin(url) for url in [*urls, *listed] if url]


def api_base(provider: Provider) -> str:
    """What relative URLs of a client are relative to."""
    return provider.api_base_url or provider.issuer or ""
