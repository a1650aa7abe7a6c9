"""Connections on plain sockets, for httpcore2's blocking pool: every operation ends by a deadline.

The deadline is the whole exchange's, which httpcore2 does not know; its own streams set a timeout for
each operation, and one around them would be done twice for each read of each call.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import httpcore2

from .io import Heartbeat
from .io_transport import readable, remaining
from .stepping import run

#: What the exchange that runs on this thread does while it waits for an answer.
heartbeat_at: ContextVar[Heartbeat | None] = ContextVar("oauthgate_heartbeat", default=None)


def connect(
    address: str,
    port: int,
    timeout: float | None,
    local_address: str | None,
    socket_options: Iterable[Any] | None,
) -> httpcore2.NetworkStream:
    """A connection to an IP address, within `timeout` seconds and the exchange's deadline.

    Raises `httpcore2.ConnectTimeout`, `httpcore2.ConnectError`.
    """
    local = (local_address, 0) if local_address is not None else None
    try:
        sock = socket.create_connection((address, port), remaining(timeout), source_address=local)
    except TimeoutError:
        raise httpcore2.ConnectTimeout("no connection in time") from None
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            sock.setsockopt(*option)
    except OSError as error:  # some systems say so when the other side has gone again
        sock.close()
        raise httpcore2.ConnectError(str(error)) from error
    return Stream(sock)


class Stream(httpcore2.NetworkStream):
    """A connection as httpcore2 uses it, on the thread that makes the call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        heartbeat = heartbeat_at.get()
        while True:
            wakes = False
            try:
                left = remaining(timeout)
                # Waking up in between keeps a lease alive on this very thread, without another one.
                if heartbeat is not None and (left is None or left > heartbeat.every):
                    left, wakes = heartbeat.every, True
                self._sock.settimeout(left)
                return self._sock.recv(max_bytes)
            except TimeoutError:
                if heartbeat is None or not wakes:
                    raise httpcore2.ReadTimeout("nothing came in time") from None
            except OSError as error:
                raise httpcore2.ReadError(str(error)) from error
            run(heartbeat.beat())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            self._sock.settimeout(remaining(timeout))
            sent = self._sock.send(buffer)
            if sent == len(buffer):
                return
            rest = memoryview(buffer)[sent:]
            while rest:
                self._sock.settimeout(remaining(timeout))
                rest = rest[self._sock.send(rest) :]
        except TimeoutError:
            raise httpcore2.WriteTimeout("the other side took too long") from None
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        secured: ssl.SSLSocket | None = None
        try:
            self._sock.settimeout(remaining(timeout))
            # A connection that is over by now: `ssl` would leave its socket open.
            self._sock.getpeername()
            secured = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except TimeoutError:
            raise httpcore2.ConnectTimeout("no TLS in time") from None
        except OSError as error:  # `ssl.SSLError` is one
            raise httpcore2.ConnectError(str(error)) from error
        finally:
            if secured is None:
                self.close()
        self._sock = secured
        # It would even make a socket without TLS of it, which hands out what came in plain text.
        if secured.version() is None:
            self.close()
            raise httpcore2.ConnectError("the connection was closed")
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore2 declares it
        if info == "is_readable":
            return readable(self._sock.fileno())
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        return self._sock if info == "socket" else None
