"""Clients made quickly are as httpx2 makes them, and no two share what one of them can change."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from oauthgate import client_template
from oauthgate.clients import AsyncService, SyncService
from oauthgate.io_async import AsyncIO
from oauthgate.io_blocking import BlockingIO
from oauthgate.link_auth import Grant
from oauthgate.providers import Provider
from oauthgate.records import Link, Profile, Token

KINDS: list[Any] = [SyncService, AsyncService]


def service(kind: Any) -> Any:
    provider = Provider(
        name="local",
        protocol="oauth2",
        client_id="id",
        api_base_url="https://api.example/v1",
        headers={"X-Client": "id"},
        timeout=7.0,
    )
    link = Link(
        provider="local",
        identity="local",
        account_id="1",
        profile=Profile(id="1"),
        token=Token(access_token="t", received_at=0.0),
        linked_at=0.0,
    )
    refresher: Any = None
    return kind(
        Grant(refresher, provider, "user", link), BlockingIO() if kind is SyncService else AsyncIO()
    )


@pytest.fixture(autouse=True)
def fresh() -> None:
    client_template.template.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_is_as_httpx2_makes_it(kind: Any) -> None:
    """Every attribute that httpx2's constructor sets is there, with the value that it sets."""
    made = service(kind)
    assert client_template.template.cache_info().currsize == 1
    plain = kind.__mro__[2](
        base_url="https://api.example/v1",
        headers={"X-Client": "id"},
        timeout=httpx2.Timeout(7.0, pool=60.0),
        trust_env=False,
        transport=client_template._Nowhere(),
    )
    assert vars(made).keys() - {"_addresses", "_grant"} == vars(plain).keys()
    for name in vars(plain).keys() - {"_auth", "_cookies", "_event_hooks", "_transport"}:
        assert vars(made)[name] == vars(plain)[name], name
    assert str(made.base_url) == "https://api.example/v1/"
    assert not made.is_closed


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_is_known(kind: Any) -> None:
    """Parsed once for all clients of a provider, and the same as httpx2 makes it each time."""
    for _ in range(2):
        for path in ("me", "/a/../b", "x;y/%2F", "https://api.example/v1/é", "me#top", "", "k?q=secret"):
            plain = httpx2.Client(base_url="https://api.example/v1", trust_env=False)
            wanted = plain.build_request("GET", path, headers={"X-Client": "id"})
            asked = service(kind).build_request("GET", path)
            assert (asked.url, asked.headers["host"]) == (wanted.url, wanted.headers["host"])
            with_query = service(kind).build_request("GET", path, params={"page": "2"})
            assert with_query.url == plain.build_request("GET", path, params={"page": "2"}).url
    first, second = (service(kind).build_request("GET", "me") for _ in range(2))
    # A redirect to the same address is told from the request by the very object.
    assert first.url == second.url and first.url is not second.url
    known = service(kind)._addresses._known
    assert "me" in known and not any(
        "secret" in str(url) or "page" in str(url) for url in known.values()
    )
    service(kind).build_request("GET", "https://me:secret@api.example/v1/me")
    for number in range(1000):
        service(kind).build_request("GET", f"people/{number}")
    assert len(known) <= 256 and not any("secret" in str(url) for url in known.values())
    moved = service(kind)
    moved.base_url = "https://other.example/"
    assert str(moved.build_request("GET", "people/999").url) == "https://other.example/people/999"
    assert str(service(kind).build_request("GET", "people/999").url).startswith(
        "https://api.example/v1/"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_clients_share_what_can_be_changed(kind: Any) -> None:
    """Whatever a handler does to its client, the next visitor's client knows nothing of it."""
    one = service(kind)
    before = repr(_state(service(kind)))
    one.headers["X-Secret"] = "of one visitor"
    one.cookies.set("secret", "of one visitor")
    one.params = one.params.set("secret", "of one visitor")
    one.timeout.read = 1.0
    one.event_hooks["request"].append(print)
    one.event_hooks["response"].append(print)
    one._mounts["all://"] = None
    one.base_url = "https://elsewhere.example"
    one.auth = None
    one.follow_redirects = True
    assert repr(_state(one)) != before
    assert repr(_state(service(kind))) == before
    other = service(kind)
    shared = {name for name, value in vars(other).items() if value is vars(service(kind))[name]}
    # What the provider's paths mean is the same for everybody: see `test_an_address_that_is_known`.
    for name in shared - {"_addresses"}:
        assert isinstance(vars(other)[name], client_template._CONSTANT), name


def _state(client: Any) -> list[Any]:
    return [
        list(client.headers.raw),
        len(client.cookies),
        str(client.params),
        client.timeout,
        [len(hooks) for hooks in client.event_hooks.values()],
        client._mounts,
        str(client.base_url),
        client.auth,
        client.follow_redirects,
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["more", "less"])
def test_an_httpx2_that_is_not_known(kind: Any, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where httpx2 keeps anything else, each client is made by its constructor, and shares nothing."""
    base = kind.__mro__[2]
    original = base.__init__

    def other(self: Any, **options: Any) -> None:
        original(self, **options)
        if change == "more":
            self._remembered = []
        else:
            del self._mounts

    monkeypatch.setattr(base, "__init__", other)
    one, two = service(kind), service(kind)
    assert one.headers["X-Client"] == "id"
    assert one.headers is not two.headers
    assert len(one.event_hooks["request"]) == 1
    assert repr(one.auth) == "LinkAuth('local')"
    assert type(one.cookies).__name__ == "_NoCookies"
    assert type(one._transport).__name__ == "_Shared"
    if change == "more":
        assert one._remembered is not two._remembered
