"""The way to end the session at a provider, for a script that must not see the ID token on it.

RP-Initiated Logout 1.0 puts the ID token into the address (`id_token_hint`). A navigation is redirected
there; a script that signs out gets an address of the gate's instead, which holds the other one sealed.
"""

from __future__ import annotations

import base64
import time
from urllib.parse import urlencode

import msgspec

from ..answers import redirect
from ..errors import GateError, SealError
from ..messages import Response
from .context import Context

#: Seconds for which the sealed address is good: a script goes there at once.
LIFETIME = 300


def covered(context: Context, url: str) -> str:
    """An address of ours that leads to `url`, in which nobody can read what stands in `url`."""
    body = msgspec.msgpack.encode([int(time.time()) + LIFETIME, url])
    sealed = base64.urlsafe_b64encode(context.gate.keys.seal("end-session", body)).rstrip(b"=")
    return f"{context.site.url('/end-session')}?{urlencode({'to': sealed.decode()})}"


async def end_session(context: Context) -> Response:
    """`GET /end-session?to=`: a 303 to the provider. Only addresses that we sealed lead anywhere."""
    # A script that fetched it could read where a provider with a lenient CORS policy led it.
    if context.request.values("sec-fetch-mode") not in ([], ["navigate"]):
        raise GateError("invalid_request", "this address is for a browser to go to, not for a script")
    text = context.query("to") or ""
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        body = context.gate.keys.open("end-session", sealed)
        expires_at, url = msgspec.msgpack.decode(body, type=tuple[int, str])
    except (ValueError, SealError, msgspec.MsgspecError):
        raise GateError("invalid_request", "this address is not one that we made") from None
    if expires_at < time.time():
        raise GateError("invalid_request", "this address is too old; sign out at the provider itself")
    return redirect(url)
