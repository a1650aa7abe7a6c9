"""An OAuth 1.0a server (RFC 5849) by other hands: oauthorize and passport-http-oauth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.servers import login_oauth1, oauth1_server
from tests.support import BASE, SiteUnderTest

from .conftest import MakeSite, started
from .flow import profile, refused, signed_in, start, start_link, token

SECRET = "s" * 40
CONFIG: dict[str, Any] = {
    "clients": [
        {
            "client_id": "key",
            "client_secret": SECRET,
            "redirect_uris": [f"{BASE}/_oauth/{name}/callback"],
        }
        for name in ("bird",)
    ],
    "accounts": [
        {"user_id": "12345", "screen_name": "ada", "name": "Ada Lovelace"},
        {"user_id": "67890", "screen_name": "grace", "name": "Grace Hopper"},
    ],
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server, which asks on a page and answers a denial with `oauth_problem`."""
    with started(oauth1_server({**CONFIG, "consent": "page"})) as url:
        yield url


@pytest.fixture(scope="module")
def twitterlike() -> Iterator[str]:
    """The same, answering a denial as Twitter does."""
    with started(oauth1_server({**CONFIG, "denial": "denied"})) as url:
        yield url


def table(url: str, **more: object) -> dict[str, dict[str, Any]]:
    return {
        "bird": {
            "protocol": "oauth1",
            "client_id": "key",
            "client_secret": SECRET,
            "request_token_url": f"{url}/request_token",
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/access_token",
            "userinfo_endpoint": f"{url}/api/me",
            "api_base_url": f"{url}/api",
            "profile": {"id": "user_id", "username": "screen_name", "name": "name"},
            **more,
        }
    }


def login(site: SiteUnderTest, person: httpx2.Client, account: str = "ada") -> httpx2.Client:
    browser = site.browser()
    signed_in(site, login_oauth1(person, start(site, browser, "bird"), account).send(browser))
    return browser


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256"])
def test_login_and_signed_calls(
    method: str, server: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """Three steps, then signed calls: any method, query and body, as the server's verifier sees them."""
    site = make_real_site(table(server, signature_method=method))
    browser = login(site, person)
    assert profile(browser) == {"id": "12345", "username": "ada", "name": "Ada Lovelace"}
    assert browser.get("/sync/bird/me").json()["user_id"] == "12345"

    odd: list[tuple[str, str | int | float | bool | None]] = [
        ("q", "a b+c%2B&=/ü€~"),
        ("empty", ""),
        ("a", "!*'()"),
        ("Z", "日本"),
    ]
    form = str(httpx2.QueryParams([("status", "Grüße & mehr = 100% +1"), ("empty", "")]))
    bodies: list[tuple[str, str | None, bytes]] = [
        ("GET", None, b""),
        ("DELETE", None, b""),
        ("POST", "application/x-www-form-urlencoded", form.encode()),
        ("PUT", "application/x-www-form-urlencoded", form.encode()),
        ("POST", "application/json", '{"text": "Grüße", "n": [1, 2]}'.encode()),
        ("PUT", "application/octet-stream", bytes(range(256)) * 40),
        ("POST", "multipart/form-data; boundary=x", b"--x\r\n\r\nbinary\x00\xff\r\n--x--\r\n"),
    ]
    for verb, content_type, body in bodies:
        headers = {"content-type": content_type} if content_type else {}
        answer = browser.request(verb, "/call/bird/echo/1.1", params=odd, content=body, headers=headers)
        assert answer.status_code == 200, (verb, content_type, answer.text)
        seen = answer.json()
        assert (seen["method"], seen["user_id"]) == (verb, "12345")
        assert seen["query"] == [list(pair) for pair in odd]
        assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_link_a_second_account(server: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Two accounts of one provider in one user; each client signs with its own token."""
    site = make_real_site(table(server))
    browser = login(site, person)
    callback = login_oauth1(person, start_link(site, browser, "bird"), "grace")
    signed_in(site, callback.send(browser))
    assert browser.get("/who").json()["links"] == ["bird:12345", "bird:67890"]
    assert browser.get("/call/bird:12345/me").json()["user_id"] == "12345"
    assert browser.get("/call/bird:67890/me").json()["user_id"] == "67890"


def test_wrong_secret(server: str, make_real_site: MakeSite) -> None:
    """The server does check the signatures: with another secret not even a request token is had."""
    site = make_real_site(table(server, client_secret=SECRET[:-1] + "x"))
    browser = site.browser()
    answer = browser.get("/_oauth/bird/login", headers={"accept": "application/json"})
    refused(browser, answer, 502, "provider_misbehaved")


def test_wrong_verifier(server: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A verifier that is not the one given to this person is refused by the server (row 46)."""
    site = make_real_site(table(server))
    browser = site.browser()
    callback = login_oauth1(person, start(site, browser, "bird"), "ada")
    forged = httpx2.URL(callback.url).copy_set_param("oauth_verifier", "made-up")
    refused(browser, browser.get(str(forged)), 502, "provider_misbehaved")


def test_callback_again(server: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Reload and back button do no harm, though a request token is good for one exchange (row 12)."""
    site = make_real_site(table(server))
    browser = site.browser()
    callback = login_oauth1(person, start(site, browser, "bird"), "ada")
    for _ in range(3):
        signed_in(site, callback.send(browser))
    assert browser.get("/call/bird/me").json()["user_id"] == "12345"


def test_denial_by_oauth_problem(server: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """`oauth_problem=user_refused`, which comes without the request token: a page that says so."""
    site = make_real_site(table(server))
    browser = site.browser()
    callback = login_oauth1(person, start(site, browser, "bird"), deny=True)
    assert callback.params == {"oauth_problem": "user_refused"}
    refused(browser, callback.send(browser), 400, "access_denied")
    assert login(site, person).get("/who").json()["services"] == ["bird"]


def test_denial_as_twitter_does(
    twitterlike: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """`denied=<request token>`: the same answer, and that flow is over."""
    site = make_real_site(table(twitterlike))
    browser = site.browser()
    callback = login_oauth1(person, start(site, browser, "bird"), deny=True)
    assert set(callback.params) == {"denied"}
    refused(browser, callback.send(browser), 400, "access_denied")
    assert [item.name for item in browser.cookies.jar if "flow" in item.name] == []
    assert login(site, person).get("/who").json()["services"] == ["bird"]


def test_revoked_token(server: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A token that was withdrawn over there: the 401 reaches the handler; linking again renews it."""
    site = make_real_site(table(server))
    browser = login(site, person)
    value = token(site, "bird").access_token
    assert httpx2.post(f"{server}/_test/revoke", params={"token": value}).status_code == 204
    assert browser.get("/call/bird/me").status_code == 401
    signed_in(site, login_oauth1(person, start_link(site, browser, "bird"), "ada").send(browser))
    assert browser.get("/call/bird/me").json()["user_id"] == "12345"
