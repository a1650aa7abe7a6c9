"""What a request looks like to the endpoints, and how they refuse one.

Owns: `Message` (a request read once and completely, also the entry of the provider's log),
`read` (the only place that reads from the ASGI channel), strict parameter sets
(RFC 6749 section 3.1: no parameter twice, an empty one counts as absent) and `Refusal`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

BODY_LIMIT = 256 * 1024  # a larger body is hashed and counted, and not kept
FORM_TYPE = "application/x-www-form-urlencoded"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

Pairs = tuple[tuple[str, str], ...]


class Refusal(Exception):
    """Carries the answer that ends a request early; no endpoint continues after one."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"answered with status {response.status_code}")
        self.response = response


def oauth2_error(
    error: str, description: str, status: int = 400, headers: Mapping[str, str] | None = None
) -> Refusal:
    """Build the JSON error of RFC 6749 section 5.2."""
    body = {"error": error, "error_description": description}
    return Refusal(JSONResponse(body, status, headers={**NO_STORE, **(headers or {})}))


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters by name; `repeated` names those that came more than once."""

    values: Mapping[str, str] = field(repr=False)
    repeated: frozenset[str]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Params:
        values: dict[str, str] = {}
        repeated: set[str] = set()
        for name, value in pairs:
            if name in values:
                repeated.add(name)
            values.setdefault(name, value)
        present = {name: value for name, value in values.items() if value}
        return cls(present, frozenset(repeated))

    def get(self, name: str) -> str | None:
        return self.values.get(name)


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One request as received.

    `raw_path` is still percent-encoded, as a signature needs it; `query` and `form` keep order
    and repetition. `body` is empty when it was longer than 256 KiB (`complete` is then False);
    `body_length` and `body_sha256` always describe the whole of it.
    """

    endpoint: str
    method: str
    scheme: str
    host: str
    root_path: str
    raw_path: str
    query: Pairs
    headers: Pairs
    form: Pairs = ()
    body: bytes = b""
    body_length: int = 0
    body_sha256: str = ""
    complete: bool = True

    def __repr__(self) -> str:
        # Names only: values are credentials, and test runners print representations.
        names = ", ".join(name for name, _ in (*self.query, *self.form))
        return f"<{self.method} {self.endpoint} ({names})>"

    @property
    def params(self) -> dict[str, str]:
        """Return query and form parameters together, for assertions; the last of a name wins."""
        return dict((*self.query, *self.form))

    @property
    def root(self) -> str:
        """Return the address under which the app was reached, without a trailing slash."""
        return f"{self.scheme}://{self.host}{self.root_path}"

    @property
    def url(self) -> str:
        """Return the address of the request without its query."""
        return f"{self.scheme}://{self.host}{self.raw_path}"

    def header(self, name: str) -> str | None:
        """Return a header's value; repeated headers are joined, as RFC 9110 section 5.3 says."""
        found = [value for key, value in self.headers if key == name.lower()]
        if not found:
            return None
        return ("; " if name.lower() == "cookie" else ", ").join(found)

    def cookie(self, name: str) -> str | None:
        for part in (self.header("cookie") or "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return None

    @property
    def is_form(self) -> bool:
        return is_form(self.header("content-type"))


def is_form(content_type: str | None) -> bool:
    return (content_type or "").split(";")[0].strip().lower() == FORM_TYPE


def parse_form(text: str) -> Pairs:
    return tuple(parse_qsl(text, keep_blank_values=True, errors="replace"))


async def read(request: Request, endpoint: str) -> Message:
    """Read a whole request; only the first 256 KiB of its body are ever held in memory."""
    digest, length, kept = hashlib.sha256(), 0, bytearray()
    async for chunk in request.stream():
        digest.update(chunk)
        length += len(chunk)
        if length <= BODY_LIMIT:
            kept += chunk
    complete = length <= BODY_LIMIT
    body = bytes(kept) if complete else b""
    scope = request.scope
    headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"])
    query = (scope.get("query_string") or b"").decode("ascii", "replace")
    raw_path = (scope.get("raw_path") or request.url.path.encode()).split(b"?")[0]
    host = request.headers.get("host") or request.url.netloc
    form = is_form(request.headers.get("content-type"))
    return Message(
        endpoint=endpoint,
        method=request.method,
        scheme=scope.get("scheme", "http"),
        host=host,
        root_path=scope.get("root_path", ""),
        raw_path=raw_path.decode("ascii", "replace"),
        query=parse_form(query),
        headers=headers,
        form=parse_form(body.decode("utf-8", "replace")) if form else (),
        body=body,
        body_length=length,
        body_sha256=digest.hexdigest(),
        complete=complete,
    )
