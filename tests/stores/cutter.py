"""A proxy in front of a server that breaks connections at a chosen request, or at its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Cutter:
    """`counts` tells a request, as it is sent, from what introduces a client to the server.

    `requests` are still to be swallowed with their connection, and so are `answers` to requests that
    reach the server, both after `spare` requests that are left alone. `connections` counts those made.
    """

    def __init__(self, port: int, counts: Callable[[bytes], bool]) -> None:
        #: The port behind it; another one is as when the name of a primary moves.
        self.target = port
        self._counts = counts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.spare = self.requests = self.answers = 0
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.target)) as server,
        ):
            doomed = threading.Event()
            answers = threading.Thread(target=self._answer, args=(server, client, doomed))
            answers.start()
            with contextlib.suppress(OSError):
                self._pass_on(client, server, doomed)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _pass_on(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        # Clients here send one command and wait for its answer.
        while request := client.recv(65536):
            if self._counts(request):
                if self.spare:
                    self.spare -= 1
                elif self.requests:
                    self.requests -= 1
                    return
                elif self.answers:
                    self.answers -= 1
                    doomed.set()
            server.sendall(request)

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (answer := server.recv(65536)) and not doomed.is_set():
                client.sendall(answer)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def to_redis(request: bytes) -> bool:
    """Everything but what redis-py says of itself on a new connection."""
    return b"CLIENT" not in request


def to_postgres(request: bytes) -> bool:
    """A statement of ours: it begins with `Parse`."""
    return request.startswith(b"P")
