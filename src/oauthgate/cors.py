"""Front ends of other origins: credentials for exactly the configured origins, and no word to any other.

The Fetch standard's CORS protocol. An origin is compared as text, so there is no suffix, port or case to
be mistaken about, and `null` is nobody's. Every answer says that it depends on `Origin`, also where none
was sent: a cache would hand the one to the other.
"""

from __future__ import annotations

from collections.abc import Collection

from .answers import COMMON
from .messages import Request, Response

#: What a page may send beside the headers that every page may send; lower case.
_HEADERS = ("authorization", "content-type", "x-csrf-token")
#: What a page may read beside the headers that every page may read.
_EXPOSED = "Retry-After"
#: Seconds for which a browser may remember the answer to a preflight.
_MAX_AGE = 600


def share(request: Request, allowed: Collection[str], answer: Response) -> None:
    """Let a page of an allowed origin read an answer."""
    if not allowed:
        return
    if not any(name == "Vary" and "Origin" in value for name, value in answer.headers):
        answer.headers.append(("Vary", "Origin"))
    origin = _origin(request, allowed)
    if origin is not None and request.method != "OPTIONS":
        answer.headers.append(("Access-Control-Allow-Origin", origin))
        answer.headers.append(("Access-Control-Allow-Credentials", "true"))
        answer.headers.append(("Access-Control-Expose-Headers", _EXPOSED))


def preflight(request: Request, allowed: Collection[str], methods: Collection[str]) -> Response:
    """The answer to OPTIONS: what there is, and for an allowed origin that it may do what it asks for.

    Looks at nothing but headers: a preflight has no identity, and no effect.
    """
    answer = Response(204, [*COMMON, ("Allow", ", ".join(sorted([*methods, "OPTIONS"])))])
    origin = _origin(request, allowed)
    wanted = request.values("access-control-request-method")
    headers = [
        name.strip().lower()
        for value in request.values("access-control-request-headers")
        for name in value.split(",")
    ]
    if origin is None or len(wanted) != 1 or wanted[0] not in methods:
        return answer
    if not all(name in _HEADERS for name in headers if name):
        return answer
    answer.headers += [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Methods", ", ".join(sorted(methods))),
        ("Access-Control-Allow-Headers", ", ".join(_HEADERS)),
        ("Access-Control-Max-Age", str(_MAX_AGE)),
    ]
    return answer


def _origin(request: Request, allowed: Collection[str]) -> str | None:
    """The request's origin if it is an allowed one; a repeated header is of nobody."""
    origins = request.values("origin")
    return origins[0] if len(origins) == 1 and origins[0] in allowed else None
