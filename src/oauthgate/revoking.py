"""Asking a provider to revoke the tokens of a link that was removed here."""

from __future__ import annotations

from .errors import GateError
from .outbound import Outbound
from .protocols import oauth2
from .protocols.discovery import Directory
from .providers import Provider
from .records import Link


async def revoke(
    outbound: Outbound, directory: Directory, provider: Provider, link: Link
) -> bool | None:
    """Whether the provider agreed; None where it offers no way to revoke. Never raises `GateError`."""
    try:
        complete = await directory.complete(provider)
    except GateError:
        return False
    if not oauth2.can_revoke(complete):
        return None
    return await oauth2.revoke(outbound, complete, link.token)
