"""panva's oidc-provider, a certified OpenID provider: every client authentication, and the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey

from tests.servers import end_session_oidc_provider, login_oidc_provider, oidc_provider
from tests.support import BASE, SiteUnderTest

from .conftest import SECURE_BASE, MakeSite, started
from .flow import profile, refused, signed_in, start, start_link, token

ADA = {
    "sub": "ada",
    "name": "Ada Lovelace",
    "preferred_username": "ada",
    "email": "ada@example.com",
    "email_verified": True,
}
SECRET = "s" * 40
#: What form-encoding inside Basic is for (RFC 6749 section 2.3.1).
ODD_ID, ODD_SECRET = "client:+%/&= ~", "secret:+%/&= ~" + "s" * 32
KEY = ECKey.generate_key("P-256", {"kid": "the-client", "alg": "ES256", "use": "sig"})
#: Seconds that an access token lives on the server for short ones.
SHORT = 2


def client(name: str, **more: object) -> dict[str, object]:
    """A client as registered (RFC 7591); its redirect URIs are those of the table `name`."""
    return {
        "client_id": name,
        "client_secret": SECRET,
        "redirect_uris": [f"{base}/_oauth/{name}/callback" for base in (BASE, SECURE_BASE)],
        "post_logout_redirect_uris": [f"{BASE}/"],
        "grant_types": ["authorization_code", "refresh_token"],
        **more,
    }


PRIVATE = client(
    "private",
    token_endpoint_auth_method="private_key_jwt",
    token_endpoint_auth_signing_alg="ES256",
    jwks={"keys": [KEY.as_dict(private=False)]},
)
del PRIVATE["client_secret"]
PUBLIC = client("public", token_endpoint_auth_method="none")
del PUBLIC["client_secret"]

CLIENTS = [
    client("basic", client_id=ODD_ID, client_secret=ODD_SECRET),
    client("post", token_endpoint_auth_method="client_secret_post"),
    PUBLIC,
    PRIVATE,
    client("rs256", id_token_signed_response_alg="RS256"),
    client("es256", id_token_signed_response_alg="ES256"),
    client("eddsa", id_token_signed_response_alg="EdDSA"),
    client("hs256", id_token_signed_response_alg="HS256"),
    client("posted"),
    client("signed", userinfo_signed_response_alg="ES256"),
]
#: The tables that go with them, beside issuer and scope.
TABLES: dict[str, dict[str, Any]] = {
    "basic": {
        "client_id": ODD_ID,
        "client_secret": ODD_SECRET,
        "token_endpoint_auth_method": "client_secret_basic",
    },
    "post": {"token_endpoint_auth_method": "client_secret_post"},
    "public": {"client_secret": "", "token_endpoint_auth_method": "none"},
    "private": {
        "client_secret": "",
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "private_key": KEY.as_pem(private=True).decode(),
        "private_key_id": "the-client",
    },
    "rs256": {"id_token_signed_response_alg": "RS256"},
    "es256": {"id_token_signed_response_alg": "ES256"},
    "eddsa": {"id_token_signed_response_alg": "EdDSA"},
    "hs256": {"id_token_signed_response_alg": "HS256"},
    "posted": {"response_mode": "form_post"},
    "signed": {"userinfo_signed_response_alg": "ES256"},
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The provider with all of the clients."""
    config = {
        "accounts": [ADA],
        "clients": CLIENTS,
        "configuration": {"features": {"jwtUserinfo": {"enabled": True}}},
    }
    with started(oidc_provider(config)) as url:
        yield url


@pytest.fixture(scope="module")
def short_issuer() -> Iterator[str]:
    """One whose access tokens end soon, and which rotates its refresh tokens."""
    config = {"accounts": [ADA], "clients": CLIENTS, "ttl": {"AccessToken": SHORT}}
    with started(oidc_provider(config)) as url:
        yield url


def table(issuer: str, name: str, **more: object) -> dict[str, Any]:
    """A provider's table; the API that its token is for is the userinfo endpoint (`me`)."""
    return {
        "issuer": issuer,
        "client_id": name,
        "client_secret": SECRET,
        "scope": ["profile", "email", "offline_access"],
        "authorization_params": {"prompt": "consent"},
        "api_base_url": issuer,
        **TABLES[name],
        **more,
    }


def login(site: SiteUnderTest, person: httpx2.Client, name: str) -> httpx2.Client:
    """Sign in as ada; her browser."""
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, name))
    signed_in(site, callback.send(browser))
    return browser


@pytest.mark.parametrize("name", list(TABLES))
def test_login_and_call(name: str, issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """By discovery alone: each client authentication, signature and response mode signs in and calls."""
    base = SECURE_BASE if name == "posted" else BASE
    site = make_real_site({name: table(issuer, name)}, base)
    browser = login(site, person, name)
    assert profile(browser) == {
        "id": "ada",
        "username": "ada",
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "email_verified": True,
    }
    if name != "signed":  # that one's userinfo is a JWT, and no JSON for the handler of these tests
        assert browser.get(f"/call/{name}/me").json()["sub"] == "ada"
        assert browser.get(f"/sync/{name}/me").json()["sub"] == "ada"


def test_wrong_algorithm_is_refused(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """An ID token signed in another way than configured is refused, though its signature is right."""
    site = make_real_site({"es256": table(issuer, "es256", id_token_signed_response_alg="RS256")})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "es256"))
    refused(browser, callback.send(browser), 502, "provider_misbehaved")


@pytest.mark.parametrize("name", ["basic", "post", "private"])
def test_wrong_client_credentials(
    name: str, issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """The server does check who the client is: with another secret or key nobody is signed in."""
    key = ECKey.generate_key("P-256", {"kid": "the-client"})
    wrong = {
        "private": {"private_key": key.as_pem(private=True).decode()},
    }.get(name, {"client_secret": ODD_SECRET[:-1] + "x"})
    site = make_real_site({name: table(issuer, name, **wrong)})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, name))
    answer = callback.send(browser)
    assert answer.status_code == 502, answer.text
    assert browser.get("/who").json()["user_id"] is None


def test_issuer_in_the_response(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """The server sends `iss` and says so (RFC 9207): without it or with another nothing is redeemed."""
    site = make_real_site({"post": table(issuer, "post")})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "post"))
    assert callback.params["iss"] == issuer
    url = httpx2.URL(callback.url)
    without = url.copy_remove_param("iss")
    for forged in (without, url.copy_set_param("iss", "https://other.example")):
        refused(browser, browser.get(str(forged)), 400, "invalid_request")
    # The genuine answer still works, since the forged ones cost nothing.
    signed_in(site, callback.send(browser))


def test_link_by_form_post(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Linking over `form_post`: a real browser's cross-site POST has no Lax cookie, and it ends well."""
    tables = {"posted": table(issuer, "posted"), "post": other(issuer)}
    site = make_real_site(tables, SECURE_BASE)
    browser = login(site, person, "post")
    started = site.post(browser, "/posted/link", next="/who")
    (flow,) = started.headers.get_list("set-cookie")
    assert "SameSite=None" in flow and "Secure" in flow
    callback = login_oidc_provider(person, started.headers["location"])
    assert callback.fields is not None

    # What a browser sends along with a form of another site: the flow's cookie, and not the session's.
    posting = site.browser()
    headers = {
        "origin": callback.origin,
        "sec-fetch-site": "cross-site",
        "cookie": flow.partition(";")[0],
    }
    posted = posting.post(callback.url, data=dict(callback.fields), headers=headers)
    assert posted.status_code == 303, posted.text
    assert callback.fields["code"] not in posted.headers["location"]
    browser.cookies.update(posting.cookies)
    signed_in(site, browser.get(posted.headers["location"]))
    assert browser.get("/who").json()["services"] == ["post", "posted"]


def other(issuer: str) -> dict[str, Any]:
    """The same server as a plain OAuth 2 provider: one issuer may have one table only (RFC 9207)."""
    return {
        "protocol": "oauth2",
        "client_id": "post",
        "client_secret": SECRET,
        "token_endpoint_auth_method": "client_secret_post",
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/token/revocation",
        "userinfo_endpoint": f"{issuer}/me",
        "api_base_url": issuer,
        "scope": ["openid", "profile"],
        "profile": {"id": "sub", "username": "preferred_username"},
    }


def test_oauth2_without_discovery(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """The same server as plain OAuth 2: endpoints from the table, profile from its API."""
    site = make_real_site({"post": other(issuer)})
    browser = login(site, person, "post")
    assert profile(browser)["username"] == "ada"
    assert browser.get("/call/post/me").json()["sub"] == "ada"


def test_denial(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A person who says no comes back to a page that says so, and can start again."""
    for name in ("post", "posted"):
        site = make_real_site({name: table(issuer, name)}, SECURE_BASE)
        browser = site.browser()
        callback = login_oidc_provider(person, start(site, browser, name), deny=True)
        assert callback.params["error"] == "access_denied"
        refused(browser, callback.send(browser), 400, "access_denied")
        assert login(site, person, name).get("/who").json()["services"] == [name]


def test_callback_again_does_not_redeem_again(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """Reload and back button (row 12): the server ends a grant whose code comes twice; it does not."""
    site = make_real_site({"post": table(issuer, "post")})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "post"))
    for _ in range(3):
        signed_in(site, callback.send(browser))
    assert browser.get("/call/post/me").json()["sub"] == "ada"


def test_stolen_code_is_refused(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A code put into another browser's flow (row 10): PKCE makes the server refuse it, used or not."""
    site = make_real_site({"post": table(issuer, "post")})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "post"))
    for _ in range(2):
        thief = site.browser()
        state = parse_qs(urlsplit(start(site, thief, "post")).query)["state"][0]
        stolen = httpx2.URL(callback.url).copy_set_param("state", state)
        refused(thief, thief.get(str(stolen)), 502, "provider_misbehaved")
        # Its owner has no harm of it, before and after.
        signed_in(site, callback.send(browser))
        assert browser.get("/call/post/me").json()["sub"] == "ada"


def test_withdrawn_at_the_provider(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """A grant that is gone shows at the next call: the link asks for the person, and can be renewed."""
    site = make_real_site({"post": table(issuer, "post")})
    browser = login(site, person, "post")
    revoke(issuer, token(site, "post").access_token)
    lost = browser.get("/call/post/me", headers={"accept": "application/json"})
    assert (lost.status_code, lost.json()["reason"]) == (401, "reauth_required")
    assert browser.get("/_oauth/session").json()["links"][0]["state"] == "reauth_required"
    callback = login_oidc_provider(person, start_link(site, browser, "post"))
    signed_in(site, callback.send(browser))
    assert browser.get("/call/post/me").json()["sub"] == "ada"


def revoke(issuer: str, value: str) -> None:
    """Withdraw a token of the client `post` at the server, which ends its whole grant."""
    data = {"token": value, "client_id": "post", "client_secret": SECRET}
    assert httpx2.post(f"{issuer}/token/revocation", data=data).status_code == 200


def test_refresh_with_rotation(
    short_issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """Calls go on after the access token has expired, twice, so that rotation counts."""
    site = make_real_site({"private": table(short_issuer, "private")})
    browser = login(site, person, "private")
    tokens = {token(site, "private").access_token}
    for _ in range(2):
        time.sleep(SHORT + 0.2)
        assert browser.get("/call/private/me").json()["sub"] == "ada"
        assert browser.get("/sync/private/me").json()["sub"] == "ada"
        tokens.add(token(site, "private").access_token)
    assert len(tokens) == 3


def test_unlink_revokes(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Unlinking withdraws the grant at the server (RFC 7009): the token is good for nothing there."""
    site = make_real_site({"private": table(issuer, "private")})
    browser = login(site, person, "private")
    bearer = {"authorization": f"Bearer {token(site, 'private').access_token}"}
    assert httpx2.get(f"{issuer}/me", headers=bearer).status_code == 200
    answer = browser.post(
        "/_oauth/private/unlink",
        json={},
        headers={**site.origin(), "x-csrf-token": site.csrf(browser), "accept": "application/json"},
    )
    assert answer.json() == {"unlinked": True, "revoked": True}
    assert httpx2.get(f"{issuer}/me", headers=bearer).status_code == 401
    assert browser.get("/who").json()["links"] == []


def test_logout_at_the_provider(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Signing out here goes on to the provider and comes back (RP-Initiated Logout 1.0)."""
    site = make_real_site({"post": table(issuer, "post")})
    browser = login(site, person, "post")
    answer = site.post(browser, "/logout")
    assert answer.status_code == 303, answer.text
    url = answer.headers["location"]
    assert url.startswith(f"{issuer}/session/end?")
    assert browser.get("/who").json()["user_id"] is None
    assert end_session_oidc_provider(person, url).partition("?")[0] == f"{BASE}/"
    # The provider has forgotten the person too: it asks for a password again.
    page = person.get(start(site, browser, "post"), follow_redirects=True)
    assert 'name="password"' in page.text
