"""A faster transport under the same `httpx2.AsyncClient`: aiohttp's connections (extra `aiohttp`).

The client that a handler gets stays httpx2's, with all that it does around a request; only what
carries the bytes is another. Everything that the usual transport guarantees holds here too:
connections go to the addresses that were checked, TLS is verified with the process's one context, no
redirect is followed, no cookie kept, no header added, nothing decoded, no proxy taken from the
environment. Two things are aiohttp's way: a request of an idempotent method whose connection ended
without an answer is sent once more (RFC 9112 section 9.3.1), and a wait for a free connection that takes
too long is a `ConnectTimeout`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType

import aiohttp
import httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from .io_transport import (
    KEEPALIVE,
    MAX_CONNECTIONS,
    Trust,
    check_addresses,
    tls_context,
)

#: What aiohttp would add by itself.
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
#: A header's name (RFC 9110 section 5.6.2).
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Bytes that are handed over at once. As many wait in memory until the other side takes them.
_PIECE = 64 * 1024


class _Resolver(AbstractResolver):
    """Names to addresses, of which none is private unless the host is configured."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpx2.ConnectError(f"{host} cannot be resolved") from None
        addresses = {str(entry[4][0]): entry for entry in found}
        check_addresses(host, list(addresses), self._trust.hosts)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=entry[0],
                proto=entry[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address, entry in addresses.items()
        ]

    async def close(self) -> None:
        """Nothing is held."""


class _Body(httpx2.AsyncByteStream):
    """An answer's body as it arrives; its connection goes back to the pool at the end."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _ERRORS:
            async for chunk in self._answer.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        # Reuses the connection when all of the body was read, and closes it otherwise.
        self._answer.release()


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """One provider's connections, of one event loop."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=tls_context(),
                limit=MAX_CONNECTIONS,
                keepalive_timeout=KEEPALIVE,
                resolver=_Resolver(self._trust),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_NOT_ADDED,
                trust_env=False,
            )
        return self._session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"{url.scheme} is neither http nor https")
        _check_literal(url.host, self._trust.hosts)
        sending = _Sending(request)
        with _ERRORS:
            content = sending.content()
            if content is None or isinstance(content, bytes):
                answer = await self._ask(request, content)
            else:
                answer = await self._send(request, content, sending)
        return httpx2.Response(
            answer.status,
            headers=list(answer.raw_headers),
            stream=_Body(answer),
            extensions={
                "http_version": b"HTTP/1.0" if answer.version == aiohttp.HttpVersion10 else b"HTTP/1.1",
                "reason_phrase": (answer.reason or "").encode("ascii", "replace"),
            },
        )

    async def _ask(
        self, request: httpx2.Request, content: bytes | AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        return await self._open().request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=_headers(request),
            data=content,
            allow_redirects=False,
            timeout=_timeout(**request.extensions.get("timeout", {})),
            server_hostname=request.extensions.get("sni_hostname"),
        )

    async def _send(
        self, request: httpx2.Request, content: AsyncIterator[bytes], sending: _Sending
    ) -> aiohttp.ClientResponse:
        """Ask with a body that is handed over piece by piece."""
        async with asyncio.timeout(None) as sending.writing:
            try:
                return await self._ask(request, content)
            except asyncio.CancelledError:
                if sending.writing.expired():
                    raise httpx2.WriteTimeout("the body was not taken in time") from None
                raise
            except aiohttp.ClientError:
                if sending.failed is not None:
                    raise sending.failed from None
                raise

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            if isinstance(session.connector, aiohttp.TCPConnector):
                # Nobody waits for a server's goodbye over TLS, which may never come.
                await session.connector.close(abort_ssl=True)
            await session.close()
            await asyncio.sleep(0)  # what was aborted is let go of in the loop's next round


def _headers(request: httpx2.Request) -> CIMultiDict[str]:
    """The request's header fields. Raises `httpx2.LocalProtocolError` for one that is none."""
    headers: CIMultiDict[str] = CIMultiDict()
    spelling: dict[bytes, str] = {}
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name):
            raise httpx2.LocalProtocolError("a header's name is not a token (RFC 9110 section 5.1)")
        # aiohttp frames a body of unknown length itself.
        if name.lower() == b"transfer-encoding":
            continue
        # Of two spellings of one name aiohttp would keep the last.
        known = spelling.setdefault(name.lower(), name.decode("ascii"))
        try:
            headers.add(known, value.decode())
        except UnicodeDecodeError:
            raise httpx2.LocalProtocolError("a header's value is neither ASCII nor UTF-8") from None
    return headers


class _Sending:
    """A request's body on its way. aiohttp counts nothing and has no limit of time for it.

    Without them a body that is not as long as its `Content-Length` says would take the next visitor's
    request, token and all, for its end; and a server that reads no more would hold the caller for as
    long as TCP allows.
    """

    #: What ends the exchange when a piece is not taken in time.
    writing: asyncio.Timeout

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request
        self._limit: float | None = request.extensions.get("timeout", {}).get("write")
        #: Why the body was not sent to its end.
        self.failed: httpx2.LocalProtocolError | None = None

    def content(self) -> bytes | AsyncIterator[bytes] | None:
        """What aiohttp is given."""
        body = self._request.stream
        length = self._length()
        if isinstance(body, httpx2.ByteStream):
            content = b"".join(body)
            if length is not None and length != len(content):
                raise _wrong_length()
            return self._paced(_pieces(content), length) if len(content) > _PIECE else content or None
        if not isinstance(body, httpx2.AsyncByteStream):
            raise RuntimeError("an asynchronous client needs an asynchronous body")
        return self._paced(aiter(body), length)

    def _length(self) -> int | None:
        values = self._request.headers.get_list("content-length")
        if not values:
            return None
        if len(values) > 1 or not (values[0].isascii() and values[0].isdigit()):
            raise _wrong_length()
        return int(values[0])

    async def _paced(self, parts: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        sent = 0
        async for part in parts:
            sent += len(part)
            if length is not None and sent > length:
                raise self._fail()
            self._until(loop.time() + self._limit if self._limit is not None else None)
            yield part
            self._until(None)
        if length is not None and sent < length:
            raise self._fail()

    def _fail(self) -> httpx2.LocalProtocolError:
        self.failed = _wrong_length()
        return self.failed

    def _until(self, when: float | None) -> None:
        # Once the answer has begun, the caller waits for it and not for us: there is nothing to end.
        with suppress(RuntimeError):
            if not self.writing.expired():
                self.writing.reschedule(when)


def _wrong_length() -> httpx2.LocalProtocolError:
    return httpx2.LocalProtocolError("the body is not as long as Content-Length says")


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


@lru_cache(maxsize=256)  # of what passes: an exception is not remembered
def _check_literal(host: str, trusted: frozenset[str]) -> None:
    """An address in the URL is never resolved, so it is checked here."""
    try:
        literal = ip_address(host.strip("[]"))
    except ValueError:
        if host.replace(".", "").isdigit():
            # 127.1, 2130706433: an address to some resolvers, a name to none.
            raise httpx2.ConnectError(f"{host} is neither a name nor an address") from None
        return
    check_addresses(host, [str(literal)], trusted)


@lru_cache(maxsize=64)
def _timeout(
    connect: float | None = None,
    read: float | None = None,
    write: float | None = None,
    pool: float | None = None,
) -> aiohttp.ClientTimeout:
    # aiohttp has none for writing: see `_Sending`.
    return aiohttp.ClientTimeout(total=None, connect=pool, sock_connect=connect, sock_read=read)


class _Errors:
    """aiohttp's exceptions as httpx2's. A generator would take a hundredth of a call for it."""

    def __enter__(self) -> None:
        """Nothing is kept, so one is enough for all."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, httpx2.HTTPError):
            found = _translated(error)
            if found is not None:
                raise found from None


_ERRORS = _Errors()


def _translated(error: Exception) -> httpx2.HTTPError | None:
    """What httpx2 calls it, or None for what is not aiohttp's. The texts are ours: aiohttp's may hold a
    whole URL."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx2.ConnectTimeout("no connection in time")
        case aiohttp.ServerTimeoutError():
            return httpx2.ReadTimeout("nothing came in time")
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "")
            return httpx2.ConnectError(f"certificate verify failed: {reason}")
        case aiohttp.ClientConnectorError():
            return httpx2.ConnectError("the connection failed")
        case aiohttp.ServerDisconnectedError():
            return httpx2.RemoteProtocolError("the server disconnected without an answer")
        case aiohttp.ClientOSError():
            return httpx2.ReadError("the connection broke")
        case aiohttp.ClientError():
            return httpx2.RemoteProtocolError(f"not an answer: {type(error).__name__}")
        case TimeoutError():
            return httpx2.PoolTimeout("no connection became free in time")
        case OSError():
            return httpx2.ReadError("the connection broke")
        case ValueError():
            # Control characters, for one: aiohttp refuses them with the whole value in its message.
            return httpx2.LocalProtocolError("not a request that can be sent")
    return None
