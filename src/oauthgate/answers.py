"""Answers of the gate: a page for people, JSON for programs, and the headers that both carry."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from .errors import GateError
from .messages import Request, Response

#: On everything of ours: it depends on cookies, and no address of it may travel to another site.
COMMON = [
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Cookie, Origin, Accept"),
]


def is_navigation(request: Request) -> bool:
    """Whether a person's browser is going there, so that a page or a redirect is the right answer."""
    mode = request.values("sec-fetch-mode")
    if mode:
        return mode == ["navigate"]
    return wants_page(request)


def wants_page(request: Request) -> bool:
    """Whether the client would rather have HTML than JSON."""
    accept = ",".join(request.values("accept")).lower()
    html = accept.find("text/html")
    json = accept.find("application/json")
    return html >= 0 and (json < 0 or html < json)


def json_answer(status: int, body: object, headers: list[tuple[str, str]] | None = None) -> Response:
    """A JSON answer that no other site can read or frame."""
    return Response(
        status,
        [
            *COMMON,
            ("Content-Type", "application/json"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            *(headers or []),
        ],
        msgspec.json.encode(body),
    )


def redirect(location: str, cookies: list[str] | None = None) -> Response:
    """A 303, so that no browser repeats a POST or its body (RFC 9700 section 4.12)."""
    return Response(
        303,
        [
            *COMMON,
            ("Location", header_safe(location)),
            *(("Set-Cookie", cookie) for cookie in cookies or []),
        ],
    )


def header_safe(url: str) -> str:
    """A URL as it can stand in a header: everything but visible ASCII percent-encoded."""
    return quote(url, safe="!#$%&'()*+,/:;=?@[]~", encoding="utf-8", errors="replace")


def error_body(error: GateError, **more: Any) -> dict[str, Any]:
    """The JSON shape of every error."""
    return {"error": error.code, "error_description": error.description, **more}


def empty(status: int, headers: list[tuple[str, str]] | None = None) -> Response:
    return Response(status, [*COMMON, *(headers or [])])
