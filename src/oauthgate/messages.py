"""The small request and response that the core speaks, whatever server stands outside.

An adapter makes a `Request`, the gate answers with a `Response`, the adapter writes it. Header names
are lower case in a request; a response's headers are sent as they stand, in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from .errors import GateError

#: Bytes of a body that the gate itself reads (forms and JSON of its own routes).
MAX_BODY = 64 * 1024
#: Bytes of a query string that the gate's own routes accept.
MAX_QUERY = 16 * 1024
MAX_PARAMETERS = 200

Parameters = dict[str, list[str]]


async def _no_body(limit: int) -> bytes:
    return b""


@dataclass(slots=True)
class Request:
    """One request to the gate's own routes.

    `path` starts with `/` and is what follows the prefix; `query` is the raw query string;
    `read(limit)` returns the whole body and raises `GateError` 413 past `limit` bytes.
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: list[tuple[str, str]] = field(repr=False)
    read: Callable[[int], Awaitable[bytes]] = field(default=_no_body, repr=False)
    scheme: str = "http"
    client: str | None = None

    def header(self, name: str) -> str | None:
        """The value of a header that must not be repeated; repeated ones are refused (400)."""
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise GateError("invalid_request", f"the header {name} was sent more than once")
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key == name]

    async def form_parameters(self) -> Parameters:
        """The parameters of a form body. Raises `GateError` 415 when the body is not a form."""
        content_type = (self.header("content-type") or "").split(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded":
            raise GateError(
                "unsupported_media_type",
                "expected a body of type application/x-www-form-urlencoded",
            )
        body = await self.read(MAX_BODY)
        try:
            return parse_parameters(body.decode("ascii"))
        except UnicodeDecodeError:
            raise GateError("invalid_request", "the form is not percent-encoded ASCII") from None


def parse_parameters(raw: str) -> Parameters:
    """Parse `application/x-www-form-urlencoded`, keeping every value of a repeated name.

    Raises `GateError` 414 for what is too long and 400 for what is not UTF-8: a lenient decoder
    would let two readers of one request see two different values.
    """
    if not raw.isascii():
        raise GateError("invalid_request", "the parameters are not percent-encoded ASCII")
    if len(raw) > MAX_QUERY:
        raise GateError("uri_too_long", f"parameters of at most {MAX_QUERY} bytes are accepted")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
    except ValueError:
        raise GateError(
            "invalid_request",
            f"the parameters are not UTF-8, or are more than {MAX_PARAMETERS}",
        ) from None
    parameters: Parameters = {}
    for name, value in pairs:
        parameters.setdefault(name, []).append(value)
    return parameters


def single(parameters: Parameters, name: str) -> str | None:
    """The one value of a parameter; a repeated one is refused (RFC 6749 section 3.1)."""
    values = parameters.get(name)
    if not values:
        return None
    if len(values) > 1:
        raise GateError("invalid_request", f"the parameter {name} was sent more than once")
    return values[0]


@dataclass(slots=True)
class Response:
    """What the gate answers: a status, headers in order, and a body in bytes."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    body: bytes = field(default=b"", repr=False)

    def with_header(self, name: str, value: str) -> Response:
        self.headers.append((name, value))
        return self
