"""A private DynamoDB, as moto imitates it, and a proxy in front of it that fails on demand.

Owns the life of a moto server: a process and a port (`free_port`) of its own. It ends with the block, or
with the test process if that is killed, because its standard input closes then. Its records are in its
memory, so a restart loses all of them, the tables too.

    python -m tests.servers.dynamodb PORT

is the process itself. Unlike moto's own server it does one request after another, as moto looks and
writes without a lock where DynamoDB does both in one step; and it keeps connections open, as DynamoDB
does.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .processes import START_DEADLINE, STOP_DEADLINE, Missing, ServerFailed, free_port

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
#: What boto3 finds in the environment; moto takes any.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
    "AWS_SECRET_ACCESS_KEY": "secret-access-key-of-the-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
}
#: What an error of AWS can say, and nobody else may repeat.
SECRET_WORDS = "User: arn:aws:iam::123456789012:user/somebody is not authorized on record user/ada"


class DynamoDB:
    """One moto server; `endpoint` stays the same over a restart."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, also again after `stop`, and wait until it answers."""
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.dynamodb", str(self.port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_DEADLINE
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise ServerFailed("moto's server did not start: try `python -m tests.servers.dynamodb 5000`")

    def stop(self) -> None:
        """Kill it, as a crash would, with all that it holds."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=STOP_DEADLINE)

    def restore(self) -> None:
        """Have it running, whatever was done to it."""
        if self._process is None:
            self.start()
        else:
            self.thaw()

    def freeze(self) -> None:
        """Stop it in the middle of its work: connections stay open, and nobody answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        # The signal is on its way: without the wait a request that is sent now may still be answered.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, operation: str, **parameters: object) -> dict[str, Any]:
        """Send one request, past the store."""
        import boto3.session

        client = boto3.session.Session().client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        with contextlib.closing(client):
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
            return answer


@contextlib.contextmanager
def dynamodb() -> Generator[DynamoDB]:
    """Run one.

    Raises:
        Missing: moto or what its server needs is not installed.
    """
    for module in ("boto3", "moto", "flask_cors"):
        if importlib.util.find_spec(module) is None:
            raise Missing("moto is not installed: pip install 'moto[server]>=5.1' 'boto3>=1.40'")
    server = DynamoDB()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    """Requests of AWS' JSON protocol: POSTs, over connections that stay open."""

    daemon_threads = True
    request_queue_size = 128

    def answer(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes] | None:
        """Status and body of the answer; None when the connection is to break."""
        raise NotImplementedError  # the server and the fault proxy each have theirs

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Else head and body of an answer are two packets, of which the second waits for the first.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        target = self.headers["x-amz-target"].rpartition(".")[2]
        answer = self.server.answer(target, dict(self.headers), body)
        if answer is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer[0])
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


class Front(_Server):
    """A proxy in front of the server.

    `counts` says how often each operation came. `faults` are what becomes of the next requests, one
    each: None (nothing), `"lost"` (cut off before it reaches the server), `"cut"` (the server does it,
    and the answer is lost), the code of an error, or its status and code, as an answer without reaching
    the server.
    """

    def __init__(self, server: DynamoDB) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.target = server.port
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.counts: Counter[str] = Counter()
        self.faults: deque[str | tuple[int, str] | None] = deque()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes] | None:
        self.counts[target] += 1
        fault = self.faults.popleft() if self.faults else None
        if fault == "lost":
            return None
        if fault is not None and fault != "cut":
            status, code = fault if isinstance(fault, tuple) else (400, fault)
            words = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": SECRET_WORDS}
            return status, json.dumps(words).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.target)
        with contextlib.closing(connection):
            connection.request("POST", "/", body, headers)
            reply = connection.getresponse()
            answer = reply.status, reply.read()
        return None if fault == "cut" else answer


class _Moto(_Server):
    """moto itself."""

    def __init__(self, port: int) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.test import Client

        super().__init__(("127.0.0.1", port), _Handler)
        self._client = Client(DomainDispatcherApplication(create_backend_app))
        self._one_at_a_time = threading.Lock()

    def answer(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes] | None:
        with self._one_at_a_time:
            reply = self._client.post("/", data=body, headers=headers)
            return reply.status_code, reply.data


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    moto = _Moto(int(sys.argv[1]))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    moto.serve_forever()
