"""OAuth 1.0a: signing alone, ours and Authlib's, and whether every kind of body arrives as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import oauthgate
from oauthgate.protocols.oauth1_signature import decode_pairs, signed_header

from .measure import Batch, Subject
from .peers import peer
from .site import make_config, make_link, seed

URL = "https://api.example.com/2/tweets/search/recent?query=caf%C3%A9%20music&max_results=50"
FORM = "status=Hello%20Ladies%20%2B%20Gentlemen%2C%20a%20signed%20request%21&include_entities=true"
CONSUMER = ("consumer-key", "c" * 50)
TOKEN = ("token-" + "t" * 40, "s" * 45)


def _repeat(sign: Callable[[], object]) -> Callable[[ExitStack], Batch]:
    def make(stack: ExitStack) -> Batch:
        def batch(count: int) -> None:
            for _ in range(count):
                sign()

        return batch

    return make


def _ours(method: str, body: str) -> str:
    return signed_header(
        method,
        URL,
        decode_pairs(body),
        consumer_key=CONSUMER[0],
        client_secret=CONSUMER[1],
        token=TOKEN[0],
        token_secret=TOKEN[1],
    )


def _authlib(method: str, body: str) -> Callable[[ExitStack], Batch]:
    def make(stack: ExitStack) -> Batch:
        auth: Any = peer("authlib.oauth1").ClientAuth(
            CONSUMER[0], client_secret=CONSUMER[1], token=TOKEN[0], token_secret=TOKEN[1]
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}

        def batch(count: int) -> None:
            for _ in range(count):
                auth.prepare(method, URL, dict(headers), body)

        return batch

    return make


def signing() -> list[Subject]:
    """Signing a GET with a query, and a POST with a query and a form."""
    return [
        Subject("Authlib, GET", _authlib("GET", "")),
        Subject("oauthgate, GET", _repeat(lambda: _ours("GET", ""))),
        Subject("Authlib, POST of a form", _authlib("POST", FORM)),
        Subject("oauthgate, POST of a form", _repeat(lambda: _ours("POST", FORM))),
    ]


def intact(url: str) -> tuple[int, int]:
    """How many bodies of every kind an echo server got as they were sent, and how many were sent."""
    table = {
        "client_id": CONSUMER[0],
        "client_secret": CONSUMER[1],
        "request_token_url": f"{url}/one/request_token",
        "authorization_endpoint": f"{url}/one/authorize",
        "token_endpoint": f"{url}/one/access_token",
        "userinfo_endpoint": f"{url}/one/me",
        "api_base_url": f"{url}/one/api",
        "profile": {"id": "id"},
    }
    config = make_config("memory:intact", api=url, services=0, one=table)
    token = {"token_secret": TOKEN[1], "refresh_token": "", "expires_at": None}
    user_id = seed(config, [make_link("one", "1", time.time(), **token)])[0].partition(".")[0]
    bodies: list[dict[str, Any]] = [
        {"json": {"text": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}},
        {"data": {"status": "Hello Ladies + Gentlemen, a signed request!"}},
        {"content": bytes(range(256))},
        {"content": iter([b"a stream", b" in pieces"])},
        {"files": {"media": ("a.bin", b"\x00\xff\r\n--")}},
    ]
    whole = 0
    with oauthgate.open(config) as gate:
        client = gate.services(user_id)["one"]
        for body in bodies:
            streamed = not isinstance(body.get("content", b""), bytes)
            headers = {"content-length": "18"} if streamed else {}
            sent = client.build_request("POST", "echo", headers=headers, **body)
            wanted = b"a stream in pieces" if streamed else sent.read()
            whole += client.send(sent).content == wanted
    return whole, len(bodies)
