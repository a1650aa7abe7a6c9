"""Asking for more scope: what `services.require` found missing, carried to the link page.

The list travels in the page's URL, sealed, so that nobody but the application can choose scopes: a
link somebody else made must not get a visitor to grant more than the site asked for.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence

import msgspec

from .errors import GateError, SealError
from .seal import Keys

#: Seconds for which the page's URL is good.
LIFETIME = 24 * 3600
MAX_LENGTH = 2000


def seal_ask(keys: Keys, provider: str, scope: Sequence[str]) -> str:
    """The scope as a URL-safe text that opens for this provider only."""
    body = msgspec.msgpack.encode([int(time.time()) + LIFETIME, list(scope)])
    sealed = keys.seal(f"ask/{provider}", body)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def open_ask(keys: Keys, provider: str, text: str | None) -> list[str]:
    """The scope that was sealed; an empty list without one. Raises `GateError` 400 for a forged one."""
    if not text:
        return []
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        body = keys.open(f"ask/{provider}", sealed)
        expires_at, scope = msgspec.msgpack.decode(body, type=tuple[int, list[str]])
    except (ValueError, SealError, msgspec.MsgspecError):
        raise GateError("invalid_request", "this page's address is not one that we made") from None
    if expires_at < time.time():
        raise GateError("invalid_request", "this page's address is too old; go back and try again")
    return scope
