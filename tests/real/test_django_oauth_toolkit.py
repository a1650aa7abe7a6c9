"""django-oauth-toolkit: an issuer with a path, a number as `sub`, no `iss`, RS256 and HS256."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.servers import django_oauth_toolkit, login_dot
from tests.support import BASE, SiteUnderTest

from .conftest import MakeSite, started
from .flow import profile, refused, signed_in, start, token

SECRET = "s" * 40
ADA = {
    "username": "ada",
    "password": "any password",
    "email": "ada@example.com",
    "first_name": "Ada",
    "last_name": "Lovelace",
}
#: Seconds that an access token lives there.
LIFETIME = 2


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The provider, with a client for each algorithm."""
    applications = [
        {
            "client_id": name,
            "client_secret": SECRET,
            "algorithm": algorithm,
            "redirect_uris": [f"{BASE}/_oauth/{name}/callback"],
            "post_logout_redirect_uris": [f"{BASE}/"],
        }
        for name, algorithm in (("rs", "RS256"), ("hs", "HS256"))
    ]
    settings = {"ACCESS_TOKEN_EXPIRE_SECONDS": LIFETIME}
    config = {"users": [ADA], "applications": applications, "settings": settings}
    with started(django_oauth_toolkit(config)) as url:
        yield url


def table(issuer: str, name: str) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "issuer": issuer,
            "client_id": name,
            "client_secret": SECRET,
            "scope": ["profile", "email", "read"],
            "id_token_signed_response_alg": {"rs": "RS256", "hs": "HS256"}[name],
            # Not in its discovery document.
            "revocation_endpoint": f"{issuer}/revoke_token/",
            "api_base_url": f"{issuer.removesuffix('/o')}/api",
        }
    }


def login(site: SiteUnderTest, person: httpx2.Client, name: str) -> httpx2.Client:
    browser = site.browser()
    callback = login_dot(person, start(site, browser, name), ADA["username"], ADA["password"])
    assert "iss" not in callback.params
    signed_in(site, callback.send(browser))
    return browser


@pytest.mark.parametrize("name", ["rs", "hs"])
def test_login_and_call(name: str, issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Discovery below a path, either signature, and a handler's call to its API."""
    assert issuer.endswith("/o")
    site = make_real_site(table(issuer, name))
    browser = login(site, person, name)
    assert profile(browser) == {
        "id": "1",
        "username": "ada",
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "email_verified": True,
    }
    assert browser.get("/who").json()["links"] == [f"{name}:1"]
    assert browser.get(f"/call/{name}/me").json() == {
        "id": 1,
        "username": "ada",
        "email": "ada@example.com",
    }
    # The same person again is the same user, whatever the number's type.
    user_id = browser.get("/who").json()["user_id"]
    assert login(site, person, name).get("/who").json()["user_id"] == user_id


def test_wrong_algorithm_is_refused(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """A client that expects RS256 refuses a token signed with the shared secret."""
    tables = table(issuer, "hs")
    tables["hs"]["id_token_signed_response_alg"] = "RS256"
    site = make_real_site(tables)
    browser = site.browser()
    callback = login_dot(person, start(site, browser, "hs"), ADA["username"], ADA["password"])
    refused(browser, callback.send(browser), 502, "provider_misbehaved")


def test_refresh_with_rotation(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Calls go on after the access token has expired, twice, so that rotation counts."""
    site = make_real_site(table(issuer, "rs"))
    browser = login(site, person, "rs")
    seen = {token(site, "rs").refresh_token}
    for _ in range(2):
        time.sleep(LIFETIME + 0.2)
        assert browser.get("/call/rs/me").json()["id"] == 1
        seen.add(token(site, "rs").refresh_token)
    assert len(seen) == 3


def test_unlink_revokes(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Unlinking withdraws the token there; the endpoint is the table's, as discovery has none."""
    site = make_real_site(table(issuer, "rs"))
    browser = login(site, person, "rs")
    held = token(site, "rs")
    headers = {**site.origin(), "x-csrf-token": site.csrf(browser), "accept": "application/json"}
    answer = browser.post("/_oauth/rs/unlink", json={}, headers=headers)
    assert answer.json() == {"unlinked": True, "revoked": True}
    again = httpx2.post(
        f"{issuer}/token/",
        data={"grant_type": "refresh_token", "refresh_token": held.refresh_token},
        auth=("rs", SECRET),
    )
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_denial(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A person who says no there is not signed in here, and may say yes afterwards."""
    site = make_real_site(table(issuer, "rs"))
    browser = site.browser()
    url = start(site, browser, "rs")
    callback = login_dot(person, url, ADA["username"], ADA["password"], deny=True)
    assert callback.params["error"] == "access_denied"
    refused(browser, callback.send(browser), 400, "access_denied")
    assert login(site, person, "rs").get("/who").json()["services"] == ["rs"]
