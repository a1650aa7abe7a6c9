"""The local provider in a process of its own, over http and https, so that its time is not ours.

Whoever asks for the discovery document as 127.0.0.1 is told of no userinfo endpoint: some packages
always ask it and some never do, and with the claims in the ID token all of them can sign in by the
token request alone. `GET /bench` tells what was counted.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
import uvicorn

from oauthgate.testing import Account, Client, LocalProvider, sign_in

from .api_server import Certificates, process

CLIENT_ID, CLIENT_SECRET = "bench", "bench-secret-" + "s" * 24
BASE = "http://localhost"
#: Where each package's callback is.
CALLBACKS = (
    "/callback",
    "/_oauth/corp/callback",
    "/login/corp/authorized",
    "/accounts/oidc/corp/login/callback/",
)
PEOPLE = 20
SCOPE = "openid profile email"


class Counting:
    """The provider as an ASGI app that counts requests and the connections that they come by."""

    def __init__(self, provider: LocalProvider) -> None:
        self.provider = provider
        self.connections: set[tuple[str, int]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == "/bench":
            found = {"token": self.provider.count["token"], "connections": len(self.connections)}
            await _send(send, json.dumps(found).encode())
            return
        if scope["type"] == "http" and path != "/oauth2/authorize":
            self.connections.add(tuple(scope["client"]))
        host = dict(scope.get("headers", ())).get(b"host", b"")
        if not path.startswith("/.well-known/") or not host.startswith(b"127.0.0.1"):
            await self.provider(scope, receive, send)
            return
        body = bytearray()

        async def keep(message: Any) -> None:
            body.extend(message.get("body", b""))

        await self.provider(scope, receive, keep)
        document = json.loads(body)
        document.pop("userinfo_endpoint", None)
        await _send(send, json.dumps(document).encode())


async def _send(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make_provider() -> LocalProvider:
    """Twenty accounts, one client for all packages."""
    client = Client(
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        redirect_uris=[BASE + path for path in CALLBACKS],
    )
    accounts = [
        Account(id=f"{1001 + n}", username=f"ada{n}", name="Ada Lovelace", email=f"ada{n}@example.com")
        for n in range(PEOPLE)
    ]
    return LocalProvider(
        clients=[client],
        accounts=accounts,
        pkce_required=False,  # Flask-Dance does without unless it is told
        claims_in_id_token=True,
        remember_consent=True,
        refresh_reuse_grace=0,
    )


async def _serve(certificate: str, key: str) -> None:
    app = Counting(make_provider())
    servers, ports = [], []
    secure: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key}
    for options in ({}, secure):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        ports.append(listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=120,
            timeout_graceful_shutdown=1,
            **options,
        )
        server = uvicorn.Server(config)
        servers.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
    while not all(server.started for server, _ in servers):
        await asyncio.sleep(0.01)
    print(*ports, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server, task in servers:
        server.should_exit = True
        await task


@dataclass
class Remote:
    """The provider's process, seen from the benchmark: `urls` by scheme, its people's browsers."""

    urls: dict[str, str]
    browsers: list[str] = field(default_factory=list)
    _connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)

    def sign_everybody_in(self) -> None:
        """Sign each person in once and let them consent, so that no page is in the way later."""
        for number in range(PEOPLE):
            with httpx2.Client() as client:
                sign_in(client, self.authorization_url(self.urls["http"]), f"ada{number}")
                self.browsers.append("; ".join(f"{c.name}={c.value}" for c in client.cookies.jar))

    @staticmethod
    def authorization_url(url: str) -> str:
        query = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "redirect_uri": BASE + CALLBACKS[0],
            "scope": SCOPE,
            "state": "state",
        }
        return f"{url}/oauth2/authorize?{urlencode(query)}"

    def authorize(self, location: str, person: int = 0) -> str:
        """What a person's browser does with an authorization URL: the callback URL it is sent to."""
        parts = urlsplit(location)
        connection = self._connections.get(parts.netloc)
        if connection is None:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                connection = http.client.HTTPSConnection(parts.netloc, timeout=10, context=context)
            else:
                connection = http.client.HTTPConnection(parts.netloc, timeout=10)
            self._connections[parts.netloc] = connection
        connection.request(
            "GET", f"{parts.path}?{parts.query}", headers={"Cookie": self.browsers[person]}
        )
        answer = connection.getresponse()
        body = answer.read()
        found = answer.headers["location"]
        assert answer.status in (302, 303) and found, (answer.status, body[:300])
        return found

    def counted(self) -> dict[str, int]:
        """Token requests and connections (but browsers') so far."""
        with httpx2.Client() as client:
            found: dict[str, int] = client.get(self.urls["http"] + "/bench").json()
            return found

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


@contextmanager
def provider_process(certificates: Certificates) -> Iterator[Remote]:
    """The provider in its process while the block runs."""
    names = (str(certificates.certificate), str(certificates.key))
    with process("bench.provider", *names) as (plain, secure):
        remote = Remote({"http": f"http://127.0.0.1:{plain}", "https": f"https://127.0.0.1:{secure}"})
        try:
            remote.sign_everybody_in()
            yield remote
        finally:
            remote.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
