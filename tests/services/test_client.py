"""The client that a handler gets: a real httpx2 client, authorized for one account and no other."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.testing import Account, LocalProvider, running
from tests.support import SiteUnderTest, make_config, site_under_test

BODIES: dict[str, dict[str, Any]] = {
    "json": {"json": {"text": "héllo", "list": [1, 2]}},
    "form": {"data": {"status": "a b+c&d=é", "x": ["1", "2"], "empty": ""}},
    "multipart": {
        "data": {"a": "1"},
        "files": {"media": ("ä.png", io.BytesIO(bytes(range(256))), "image/png")},
    },
    "binary": {
        "content": bytes(range(256)) * 40,
        "headers": {"content-type": "application/octet-stream"},
    },
    "text": {"content": "status=not+a+form", "headers": {"content-type": "text/plain"}},
    "nothing": {},
}
QUERIES: list[list[tuple[str, str]]] = [
    [],
    [("a", "1"), ("a", "2"), ("b", "")],
    [("q", "a b+c%20&=é~*'()!"), ("ключ", "значение")],
]


@pytest.fixture
def config(provider_url: str, tmp_path: Path) -> dict[str, Any]:
    return make_config(provider_url, tmp_path)


@pytest.fixture
def user_id(config: dict[str, Any]) -> str:
    """A user with a Twitter and a Spotify account."""
    with site_under_test("wsgi", config) as site:
        browser = site.browser()
        site.login(browser, "twitter")
        site.link(browser, "spotify")
        return str(browser.get("/who").json()["user_id"])


@pytest.fixture
def services(
    config: dict[str, Any], user_id: str
) -> Iterator[oauthgate.Services[oauthgate.SyncService]]:
    """That user's services, as blocking clients."""
    with oauthgate.open(config) as gate:
        yield gate.services(user_id)


@pytest.mark.parametrize("name", ["twitter", "spotify"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("query", QUERIES, ids=["plain", "repeated", "encoded"])
def test_bodies_and_queries_arrive_intact(
    services: oauthgate.Services[oauthgate.SyncService],
    name: str,
    body: str,
    query: Any,
) -> None:
    """Any body and query arrives byte for byte, and an independent verifier accepts the signature."""
    service = services[name]
    request = service.build_request("POST", "echo", params=query, **BODIES[body])
    sent = b"".join(request.stream)  # type: ignore[arg-type]
    request = service.build_request("POST", "echo", params=query, headers=request.headers, content=sent)
    reply = service.send(request)
    assert reply.status_code == 200, reply.text
    echo = reply.json()
    assert echo["body_sha256"] == hashlib.sha256(sent).hexdigest()
    assert echo["body_length"] == len(sent)
    assert [tuple(pair) for pair in echo["query"]] == query


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods(services: oauthgate.Services[oauthgate.SyncService], method: str) -> None:
    """Every method goes through with both kinds of authorization."""
    for name in ("twitter", "spotify"):
        assert services[name].request(method, "echo").json()["method"] == method


def test_uploads_by_httpx2_itself(services: oauthgate.Services[oauthgate.SyncService]) -> None:
    """`files=` and `data=` go through as httpx2 makes them."""
    for name in ("twitter", "spotify"):
        for body in BODIES.values():
            for held in body.get("files", {}).values():
                held[1].seek(0)
            assert services[name].post("echo", **body).status_code == 200


def test_is_a_real_client(services: oauthgate.Services[oauthgate.SyncService]) -> None:
    """URLs of both kinds, streaming, timeouts, another auth, the token itself, the auth alone."""
    spotify = services["spotify"]
    assert isinstance(spotify, httpx2.Client)
    assert spotify.get("me").json() == spotify.get(f"{spotify.base_url}me").json()
    with spotify.stream("GET", "me") as reply:
        assert json.loads(b"".join(reply.iter_bytes()))["username"] == "ada"
    assert spotify.get("me", auth=None).status_code == 401
    assert spotify.get("me", timeout=5).status_code == 200
    header = {"authorization": f"Bearer {spotify.access_token()}"}
    assert httpx2.get(f"{spotify.base_url}me", headers=header).status_code == 200
    with httpx2.Client(auth=spotify.auth, base_url=spotify.base_url) as own:
        assert own.get("me").json()["username"] == "ada"
    assert spotify.profile.username == "ada"
    assert spotify.link.account_id == "1001"
    assert spotify.scope == ("player", "tweets")


def test_closing_a_client_closes_nobody_elses_connection(
    services: oauthgate.Services[oauthgate.SyncService],
) -> None:
    """Software that closes the client it was given does not close the shared connections."""
    with services["spotify"] as spotify:
        assert spotify.get("me").status_code == 200
    assert services["twitter"].get("me").status_code == 200


def test_stream_uploads_survive_a_rejected_token(
    services: oauthgate.Services[oauthgate.SyncService], provider: LocalProvider
) -> None:
    """A file is sent again with the new token; a stream that cannot be repeated gets its 401 back."""
    provider.expire_access_tokens()
    files = {"media": ("x.bin", io.BytesIO(b"x" * 1000))}
    assert services["spotify"].post("echo", files=files).status_code == 200
    provider.expire_access_tokens()

    def endless() -> Iterator[bytes]:
        yield b"once"

    assert services["spotify"].post("echo", content=endless()).status_code == 401
    assert services["spotify"].get("me").status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/me",
        "//evil.example/me",
        "http://127.0.0.1:1/me",
        "http://user@127.0.0.1/me",
    ],
)
def test_the_token_goes_to_the_providers_hosts_only(
    services: oauthgate.Services[oauthgate.SyncService], url: str
) -> None:
    """A URL of another host, or another port, is refused before anything is sent (row 79)."""
    for name in ("twitter", "spotify"):
        with pytest.raises(oauthgate.ForeignHost, match="token is not sent there"):
            services[name].get(url)


def test_redirects(services: oauthgate.Services[oauthgate.SyncService], provider: LocalProvider) -> None:
    """A redirect to another host goes without the token, one on the same host is signed anew."""
    other = LocalProvider(name="other")
    with running(other) as elsewhere:
        for name in ("twitter", "spotify"):
            provider.faults.set(
                "tweets", status=302, headers={"location": f"{elsewhere}/api/echo"}, times=1
            )
            reply = services[name].get("tweets", follow_redirects=True)
            assert reply.status_code == 401
            assert other.received("echo")[-1].header("authorization") is None
            provider.faults.set("tweets", status=302, headers={"location": "/api/me?x=1"}, times=1)
            reply = services[name].get("tweets?y=2", follow_redirects=True)
            assert (reply.status_code, reply.json()["username"]) == (200, "ada")


def test_no_call_carries_anothers_token_or_cookie(
    config: dict[str, Any], provider: LocalProvider
) -> None:
    """50 users, 200 concurrent calls each, at an API that sets a cookie and says who called (row 61)."""
    for number in range(5000, 5050):
        provider.accounts[str(number)] = Account(id=str(number), username=f"user{number}")
    with site_under_test("wsgi", config) as site:
        users = {}
        for number in range(5000, 5050):
            browser = site.browser()
            site.login(browser, "spotify", f"user{number}")
            users[str(browser.get("/who").json()["user_id"])] = str(number)

    async def calls() -> int:
        async with oauthgate.open(config) as gate:
            gates = {user: await gate.services(user) for user in users}

            async def one(user: str) -> None:
                echo = (await gates[user]["spotify"].get("echo")).json()
                assert echo["account"] == users[user]
                assert not echo["cookie"]

            for _ in range(20):
                await asyncio.gather(*(one(user) for user in users for _ in range(10)))
        return 20 * 10 * len(users)

    assert asyncio.run(calls()) == 10_000


async def _chunks() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


def test_async_client(config: dict[str, Any], user_id: str, provider: LocalProvider) -> None:
    """The asynchronous client: streams both ways, refreshes, signs, and refuses other hosts."""

    async def story() -> None:
        async with oauthgate.open(config) as gate:
            services = await gate.services(user_id)
            for name in ("twitter", "spotify"):
                service = services[name]
                assert isinstance(service, httpx2.AsyncClient)
                assert (await service.post("echo", content=_chunks())).json()["body_length"] == 2
                async with service.stream("GET", "me") as reply:
                    assert json.loads(await reply.aread())["username"] == "ada"
                assert (await service.post("echo", data={"a": "b c"})).status_code == 200
                with pytest.raises(oauthgate.ForeignHost):
                    await service.get("https://evil.example/")
            provider.expire_access_tokens()
            assert (await services["spotify"].get("me")).status_code == 200
            assert await services["spotify"].access_token()

    asyncio.run(story())


def test_the_sync_twin_under_asgi(site: SiteUnderTest) -> None:
    """`services.sync` gives plain `def` handlers blocking clients, under both adapters."""
    browser = site.browser()
    site.login(browser, "spotify")
    assert browser.get("/sync/spotify/me").json()["username"] == "ada"
