"""What both kinds of outbound transport share: TLS context, limits, deadline, decoding, trust."""

from __future__ import annotations

import select
import ssl
import threading
import time
import zlib
from contextvars import ContextVar

import httpcore2
import httpx2

from .addresses import is_public
from .io import AddressRefused, BodyTooLarge, Reply

#: Connections idle longer than this many seconds are closed; httpx2's default of 5 s would make a
#: visitor who clicks every ten seconds pay a TLS handshake each time.
KEEPALIVE = 120.0
MAX_CONNECTIONS = 200
MAX_IDLE_CONNECTIONS = 50

_context: ssl.SSLContext | None = None
_context_lock = threading.Lock()
#: How often a TLS context was built in this process: building one costs some 20 ms.
contexts_built = 0


def tls_context() -> ssl.SSLContext:
    """The process's one TLS context, built on first use. Verification cannot be switched off."""
    global _context, contexts_built
    with _context_lock:
        if _context is None:
            _context = httpx2.create_ssl_context()
            contexts_built += 1
        return _context


#: The moment (`time.monotonic`) at which the blocking exchange that runs here must be over, or None.
deadline_at: ContextVar[float | None] = ContextVar("oauthgate_deadline", default=None)


def remaining(timeout: float | None) -> float | None:
    """`timeout` in seconds cut to what the exchange has left. Raises `TimeoutError` at nothing.

    A timeout per read alone would let a server that sends one byte every two seconds hold a thread
    for hours.
    """
    until = deadline_at.get()
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left if timeout is None else min(timeout, left)


def readable(descriptor: int) -> bool:
    """Whether a connection on which nobody waits for anything has something to say: then it is over."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # not on Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def has_strays(connection: httpcore2.HTTPConnection | httpcore2.AsyncHTTPConnection) -> bool:
    """Whether bytes came in together with the last answer that were not part of it.

    h11 would take them for the next answer, which is another visitor's. (Those that come later are seen
    by `readable`.)
    """
    parser = getattr(getattr(connection, "_connection", None), "_h11_state", None)
    return parser is not None and bool(parser.trailing_data[0])


class Trust:
    """The configured hosts, which may have private addresses.

    One object for an IO and its pools: a pool that held the IO itself would keep it, and so its own
    connections, from ever being let go of.
    """

    def __init__(self) -> None:
        self.hosts: frozenset[str] = frozenset()


def check_addresses(host: str, addresses: list[str], trusted: frozenset[str]) -> list[str]:
    """The addresses that a connection to `host` may use. Raises `AddressRefused` when one is not public.

    One private address among public ones is refused as a whole: it is what rebinding looks like.
    """
    if host.lower() not in trusted:
        for address in addresses:
            if not is_public(address):
                raise AddressRefused(
                    f"{host} resolves to an address that is not public; name the host in the "
                    "provider's table if that is meant"
                )
    if not addresses:
        raise httpx2.ConnectError(f"{host} has no address")
    return addresses


def decode_body(raw: bytes, encoding: str, limit: int) -> bytes:
    """Undo a content coding without ever holding more than `limit` bytes (a gzip bomb stops there)."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise httpx2.DecodingError("the answer has a content coding that was not asked for")
    decoder = zlib.decompressobj(wbits=47)
    try:
        body = decoder.decompress(raw, limit + 1)
    except zlib.error:
        raise httpx2.DecodingError("the answer's content coding is broken") from None
    if len(body) > limit:
        raise BodyTooLarge(f"more than {limit} bytes")
    return body


def as_reply(status: int, headers: list[tuple[bytes, bytes]], raw: bytes, limit: int) -> Reply:
    """The answer whose body is `raw`, decoded. Raises `httpx2.DecodingError`, `BodyTooLarge`."""
    codings = [value for name, value in headers if name.lower() == b"content-encoding"]
    if codings:
        raw = decode_body(raw, b", ".join(codings).decode("latin-1"), limit)
    return Reply(status, headers, raw)


def as_httpcore2(request: httpx2.Request) -> httpcore2.Request:
    """The request as a pool takes it."""
    url = request.url
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


#: What a pool raises.
POOL_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)


def as_httpx2(error: Exception) -> httpx2.HTTPError:
    """A pool's exception as httpx2's of the same name."""
    kind = getattr(httpx2, type(error).__name__, httpx2.TransportError)
    found: httpx2.HTTPError = kind(str(error))
    return found
