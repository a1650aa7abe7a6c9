"""Connections on asyncio's own transports, for httpcore2's pool.

httpcore2 reaches asyncio by way of anyio, which stops and starts the reading of a socket around each
receive and opens a cancel scope around each operation: a fifth of a call's CPU time. An event loop
that is known to be asyncio's needs neither.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, cast

import httpcore2

from .io_transport import readable

#: Bytes that wait here to be read before the other side is told to pause.
_HIGH_WATER = 256 * 1024
#: Bytes that are handed over at once, and after which other tasks have their turn. A TLS transport
#: takes any number and says "enough" only to the next ones, so that nobody waits for the other side.
_PIECE = 64 * 1024


async def connect(
    address: str,
    port: int,
    timeout: float | None,
    local_address: str | None,
    socket_options: Iterable[Any] | None,
) -> httpcore2.AsyncNetworkStream:
    """A connection to an IP address, within `timeout` seconds.

    Raises `httpcore2.ConnectTimeout`, `httpcore2.ConnectError`.
    """
    loop = asyncio.get_running_loop()
    local = (local_address, 0) if local_address is not None else None
    try:
        async with asyncio.timeout(timeout):
            transport, wire = await loop.create_connection(Wire, address, port, local_addr=local)
    except TimeoutError:
        raise httpcore2.ConnectTimeout("no connection in time") from None
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
    try:
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
    except OSError as error:
        transport.abort()
        raise httpcore2.ConnectError(str(error)) from error
    return Stream(wire)


class Wire(asyncio.Protocol):
    """What came in over one connection and was not read yet, and who waits for more, or to send more."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = bytearray()
        #: Nothing more will come in.
        self.ended = False
        self.error: Exception | None = None
        self._full = False
        self._reading_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.ended = True
        _wake(self._reader)
        _wake(self._writer)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.error = self.error or error
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    # -- what a stream calls

    async def more(self, timeout: float | None) -> None:
        """Wait until something came in, or nothing will. Raises `httpcore2.ReadTimeout`."""
        while not self.received and not self.ended:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await _within(self._reader, timeout, httpcore2.ReadTimeout)
            finally:
                self._reader = None

    def take(self, most: int) -> bytes:
        """At most so many bytes of what came in."""
        if len(self.received) <= most:
            taken, self.received = bytes(self.received), bytearray()
        else:
            taken = bytes(self.received[:most])
            del self.received[:most]
        if self._reading_paused and len(self.received) <= _HIGH_WATER:
            self._reading_paused = False
            self.transport.resume_reading()
        return taken

    async def drained(self, timeout: float | None) -> None:
        """Wait until the other side has taken enough, or will say no more: what it said is the answer
        then, also when it takes nothing of the rest. Raises `httpcore2.WriteTimeout`.
        """
        while self._full and not self.ended:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await _within(self._writer, timeout, httpcore2.WriteTimeout)
            finally:
                self._writer = None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _within(
    waiter: asyncio.Future[None], timeout: float | None, late: type[httpcore2.TimeoutException]
) -> None:
    if timeout is None:
        await waiter
        return
    # A timer, where `asyncio.timeout` would be two coroutines and a state machine: this is done for
    # each read of each call.
    timer = waiter.get_loop().call_later(timeout, _expire, waiter, late)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None], late: type[httpcore2.TimeoutException]) -> None:
    if not waiter.done():
        waiter.set_exception(late("the other side took too long"))


class Stream(httpcore2.AsyncNetworkStream):
    """A connection as httpcore2 uses it: one reader and one writer at a time (HTTP/1.1)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        #: What carries the bytes, below TLS.
        self._bare = wire.transport
        #: Bytes that were written since the last read.
        self._written = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        wire = self._wire
        self._written = 0
        if not wire.received and not wire.ended:
            await wire.more(timeout)
        if wire.received:
            return wire.take(max_bytes)
        if wire.error is not None:
            raise httpcore2.ReadError("the connection broke") from wire.error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        wire = self._wire
        for start in range(0, len(buffer), _PIECE):
            piece = memoryview(buffer)[start : start + _PIECE]
            before = self._written
            self._written += len(piece)
            if before and (before // _PIECE < self._written // _PIECE or self._readable()):
                # A server that refuses an upload answers and hangs up. To write to it then breaks the
                # connection, and what was not read by that time is lost: so it is read first. The event
                # loop looks in its first round and reads in its second.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if wire.ended or wire.transport.is_closing():
                raise httpcore2.WriteError("the connection is closed") from wire.error
            wire.transport.write(piece)
            await wire.drained(timeout)
        if wire.error is not None:
            raise httpcore2.WriteError("the connection broke") from wire.error

    async def aclose(self) -> None:
        wire = self._wire
        # An answer that goes on until its connection ends is not whole when it was ended here.
        wire.error = wire.error or ConnectionAbortedError("closed on this side")
        if not wire.transport.is_closing():
            wire.transport.close()  # over TLS this says goodbye
        # What was not sent by now is not wanted any more, and nobody waits for the other side's own
        # goodbye: it may never come. (A TLS transport that is closing already can be deaf to this.)
        self._bare.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        wire = self._wire
        secured: asyncio.Transport | None = None
        try:
            if wire.received:
                # It would be taken for what came over TLS: anybody on the way could have put it there.
                raise httpcore2.ConnectError("the server spoke before TLS")
            if not wire.ended:
                async with asyncio.timeout(timeout):
                    secured = await asyncio.get_running_loop().start_tls(
                        self._bare, wire, ssl_context, server_hostname=server_hostname
                    )
        except TimeoutError:
            raise httpcore2.ConnectTimeout("no TLS in time") from None
        except OSError as error:  # `ssl.SSLError` is one
            raise httpcore2.ConnectError(str(error) or "the connection was closed") from error
        finally:
            if secured is None:
                self._bare.abort()
        if secured is None:
            raise httpcore2.ConnectError("the connection was closed")
        wire.transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore2 declares it
        if info == "is_readable":
            return self._readable()
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._wire.transport.get_extra_info(names.get(info, info))

    def _readable(self) -> bool:
        """Whether the other side has said something that nobody waited for, or that nobody read yet."""
        wire = self._wire
        if wire.received or wire.ended or wire.transport.is_closing():
            return True
        # It may have done so since the event loop last looked.
        return readable(self._bare.get_extra_info("socket").fileno())
