"""The pages a person sees at a local provider.

Owns: sign-in with consent, the form_post page (OAuth 2.0 Form Post Response Mode), the PIN of
OAuth 1.0a's out-of-band flow, sign-out, and problems. Server-rendered, no script, no inline
style; the style sheet is a route of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from .core import Core
from .messages import NO_STORE
from .models import Account

# No form-action: browsers hold it against every redirect that follows a form, and those go on
# to the client and from there wherever the client wants to go.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    **NO_STORE,
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_templates = Environment(
    loader=PackageLoader("oauthgate.testing"), autoescape=True, undefined=StrictUndefined
)


def _page(core: Core, template: str, status: int = 200, **values: object) -> Response:
    text = _templates.get_template(template).render(provider=core.title, **values)
    return HTMLResponse(text, status, HEADERS)


def sign_in(
    core: Core,
    *,
    request: str,
    client_id: str,
    scope: tuple[str, ...],
    hint: Account | None,
    signed_in: Account | None,
) -> Response:
    """Offer every account as a button; the hinted or signed-in one comes first."""
    first = hint or signed_in
    accounts = sorted(core.accounts.values(), key=lambda account: account is not first)
    return _page(
        core,
        "sign_in.html",
        request=request,
        application=core.clients[client_id].client_name or client_id,
        scope=scope,
        accounts=accounts,
        signed_in=signed_in,
    )


def confirm_logout(core: Core, request: str, account: Account | None) -> Response:
    return _page(core, "confirm_logout.html", request=request, account=account)


def form_post(core: Core, action: str, fields: Mapping[str, str]) -> Response:
    response = _page(core, "form_post.html", action=action, fields=fields)
    # Under no-referrer a browser posts with `Origin: null`; a real provider's has its origin.
    response.headers["Referrer-Policy"] = "strict-origin"
    return response


def pin(core: Core, verifier: str) -> Response:
    return _page(core, "pin.html", pin=verifier)


def note(core: Core, heading: str, text: str) -> Response:
    return _page(core, "note.html", heading=heading, text=text)


def problem(core: Core, text: str) -> Response:
    """Tell the person what is wrong where the client must not be told by redirect."""
    return _page(core, "note.html", 400, heading="This request cannot be answered", text=text)


def redirect(uri: str, fields: Mapping[str, str]) -> Response:
    """Send the browser to `uri` with fields added to whatever query it has.

    303, so that a POSTed decision is never posted on to the client (RFC 9700 section 4.12).
    """
    if fields:
        uri += ("&" if "?" in uri else "?") + urlencode(fields)
    return RedirectResponse(uri, 303, headers={**NO_STORE, "Referrer-Policy": "no-referrer"})


def style(core: Core) -> Response:
    """Return the style sheet; the hue comes from the name, so several providers look different."""
    sheet = files(__package__).joinpath("templates", "style.css").read_text("utf-8")
    hue = f":root {{ --hue: {zlib.crc32(core.name.encode()) % 360}; }}\n"
    return Response(hue + sheet, media_type="text/css", headers={"Cache-Control": "max-age=300"})


def picture(core: Core, account_id: str) -> Response:
    """Return an account's default picture: its initial on a disc."""
    account = core.account(account_id)
    if account is None:
        return Response("no such picture", 404, media_type="text/plain")
    hue = zlib.crc32(account.id.encode()) % 360
    letter = escape((account.name or account.username)[:1].upper())
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<circle cx="32" cy="32" r="32" fill="hsl({hue} 45% 35%)"/><text x="32" y="33" fill="#fff"'
        ' font-family="sans-serif" font-size="32" text-anchor="middle"'
        f' dominant-baseline="central">{letter}</text></svg>'
    )
    headers = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "max-age=300"}
    return Response(svg, media_type="image/svg+xml", headers=headers)
