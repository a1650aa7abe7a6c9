"""The way to end the session at a provider, for a script that must not see the ID token on it.

RP-Initiated Logout 1.0 puts the ID token into the address (`id_token_hint`). A navigation is redirected
there; a script that signs out gets an address of the gate's instead, which holds the other one sealed.
It leads on in the browser that signed out only, or a script could send it to a server that follows it.
"""

from __future__ import annotations

import base64
import hmac
import time
from urllib.parse import urlencode

import msgspec

from ..answers import redirect
from ..cookies import delete_cookie, find, set_cookie
from ..errors import GateError, SealError
from ..flows import random_value
from ..messages import Response
from .context import Context

#: Seconds for which the sealed address is good: a script goes there at once.
LIFETIME = 300


def covered(context: Context, url: str, *, by_cookie: bool) -> tuple[str, list[str]]:
    """An address of ours that leads to `url`, in which nobody can read what stands in `url`, and the
    cookie without which it leads nowhere.

    There is none for a client that is not signed in by a cookie: it opens the address in a browser that
    has none of ours.
    """
    mark = random_value() if by_cookie else ""
    body = msgspec.msgpack.encode([int(time.time()) + LIFETIME, url, mark])
    sealed = base64.urlsafe_b64encode(context.gate.keys.seal("end-session", body)).rstrip(b"=")
    cookies = []
    if mark:
        cookies = [set_cookie(_cookie(context), mark, secure=context.site.secure, max_age=LIFETIME)]
    return f"{context.site.url('/end-session')}?{urlencode({'to': sealed.decode()})}", cookies


def _cookie(context: Context) -> str:
    return f"{context.site.cookie_name}-leaving"


async def end_session(context: Context) -> Response:
    """`GET /end-session?to=`: a 303 to the provider. Only addresses that we sealed lead anywhere."""
    # A script that fetched it could read where a provider with a lenient CORS policy led it.
    if context.request.values("sec-fetch-mode") not in ([], ["navigate"]):
        raise GateError("invalid_request", "this address is for a browser to go to, not for a script")
    text = context.query("to") or ""
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        body = context.gate.keys.open("end-session", sealed)
        expires_at, url, mark = msgspec.msgpack.decode(body, type=tuple[int, str, str])
    except (ValueError, SealError, msgspec.MsgspecError):
        raise GateError("invalid_request", "this address is not one that we made") from None
    if expires_at < time.time():
        raise GateError("invalid_request", "this address is too old; sign out at the provider itself")
    if not mark:
        return redirect(url)
    given = find(context.cookie_headers, _cookie(context)) or ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), mark.encode()):
        raise GateError("invalid_request", "this address is for the browser that signed out")
    return redirect(url, [delete_cookie(_cookie(context), secure=context.site.secure)])
