"""A sign-in in a window of its own: it ends on a page that tells its opener, and says nothing else.

`login?popup=ATTEMPT&opener=ORIGIN` ends at `GET /popup` instead of a page of the application. The
page's script says `done`, or the code of an error, to pages of this very origin and to an opener of the
one origin that was asked for, which must be this site's or an allowed one (RFC 9700 section 4.17). The
attempt is the opener's own random text, by which it knows the answer to its question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode

from ..answers import redirect
from ..errors import STATUS, GateError
from ..flows import Flow
from ..messages import Response
from ..pages import POPUP_SCRIPT_PATH
from ..site import POPUP_PATH
from .context import Context

_ATTEMPT = re.compile(r"[A-Za-z0-9_-]{16,64}")


def popup_target(context: Context, field: Callable[[str], str | None]) -> str | None:
    """Where a flow for a popup ends; None for one that is none. Raises `GateError` 400.

    `field` gives the single value of a parameter of the request that begins the flow.
    """
    attempt = field("popup")
    if attempt is None:
        return None
    opener = field("opener") or ""
    _check(context, attempt, opener)
    return f"{context.site.prefix}{POPUP_PATH}?{urlencode({'popup': attempt, 'opener': opener})}"


def _check(context: Context, attempt: str, opener: str) -> None:
    if not _ATTEMPT.fullmatch(attempt):
        raise GateError("invalid_request", "popup: expected 16 to 64 letters, digits, - and _")
    if opener not in ("", context.site.origin, *context.gate.config.allowed_origins):
        raise GateError(
            "invalid_request", "opener: expected this site's origin, or one of allowed_origins"
        )


async def popup(context: Context) -> Response:
    """`GET /popup`: the page at the end. Whoever opens it by hand announces nothing that is believed."""
    attempt, opener = context.query("popup") or "", context.query("opener") or ""
    _check(context, attempt, opener)
    code = context.query("error")
    if code is not None and code not in STATUS:
        code = "provider_error"
    site, pages = context.site, context.gate.pages
    below = f"{site.path}{site.prefix}"
    return context.page(
        "popup",
        script_url=f"{below}{POPUP_SCRIPT_PATH}?v={pages.scripts[POPUP_SCRIPT_PATH].version}",
        attempt=attempt,
        opener=opener or site.origin,
        channel=f"oauthgate:{below}",
        code=code,
    )


def failed_popup(context: Context, flow: Flow, error: GateError) -> Response | None:
    """The way to the page that tells the opener of an error; None for a flow without a popup."""
    if not flow.target.startswith(f"{context.site.prefix}{POPUP_PATH}?"):
        return None
    return redirect(f"{context.site.target(flow.target)}&{urlencode({'error': error.code})}")
