"""panva's oidc-provider with clients that must use DPoP (RFC 9449), with and without its nonces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey

from oauthgate.protocols.dpop import ProofKey, Proofs, new_key
from tests.servers import login_oidc_provider, oidc_provider
from tests.support import BASE, SiteUnderTest

from .conftest import MakeSite, started
from .flow import profile, refused, signed_in, start, start_link, token

ADA = {"sub": "ada", "name": "Ada Lovelace", "preferred_username": "ada"}
SECRET = "s" * 40
KEY = ECKey.generate_key("P-256", {"kid": "the-client", "alg": "ES256", "use": "sig"})
ANOTHER = ProofKey(new_key())
#: Seconds that an access token lives.
SHORT = 2
TABLES: dict[str, dict[str, Any]] = {
    "basic": {"client_secret": SECRET},
    "public": {"token_endpoint_auth_method": "none"},
    "private": {
        "token_endpoint_auth_method": "private_key_jwt",
        "private_key": KEY.as_pem(private=True).decode(),
        "private_key_id": "the-client",
    },
}


def client(name: str, **more: object) -> dict[str, object]:
    """A client that is given tokens for a proof only (section 5.2)."""
    return {
        "client_id": name,
        "redirect_uris": [f"{BASE}/_oauth/{name}/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "dpop_bound_access_tokens": True,
        **more,
    }


CLIENTS = [
    client("basic", client_secret=SECRET),
    client("public", token_endpoint_auth_method="none"),
    client(
        "private",
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_signing_alg="ES256",
        jwks={"keys": [KEY.as_dict(private=False)]},
    ),
]


def server(*, nonces: bool, lifetime: int) -> contextlib.AbstractContextManager[str]:
    """The provider, which wants its nonce in every proof, or in none."""
    config = {
        "accounts": [ADA],
        "clients": CLIENTS,
        "dpop_nonce": nonces,
        "ttl": {"AccessToken": lifetime},
    }
    return started(oidc_provider(config))


@pytest.fixture(scope="module", params=[True, False], ids=["nonce", "no-nonce"])
def issuer(request: pytest.FixtureRequest) -> Iterator[str]:
    """A provider whose tokens outlive the tests."""
    with server(nonces=request.param, lifetime=3600) as url:
        yield url


@pytest.fixture(scope="module", params=[True, False], ids=["nonce", "no-nonce"])
def short_issuer(request: pytest.FixtureRequest) -> Iterator[str]:
    """One whose tokens end soon."""
    with server(nonces=request.param, lifetime=SHORT) as url:
        yield url


def table(issuer: str, name: str, **more: object) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "client_id": name,
        "scope": ["profile", "offline_access"],
        "authorization_params": {"prompt": "consent"},
        "api_base_url": issuer,
        "dpop": True,
        **TABLES[name],
        **more,
    }


def login(site: SiteUnderTest, person: httpx2.Client, name: str) -> httpx2.Client:
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, name))
    signed_in(site, callback.send(browser))
    return browser


@pytest.mark.parametrize("name", list(TABLES))
def test_login_call_and_refresh(
    name: str, short_issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """Every kind of client signs in, calls, and goes on past the token's end, with the same key."""
    site = make_real_site({name: table(short_issuer, name)})
    browser = login(site, person, name)
    assert profile(browser)["username"] == "ada"
    first = token(site, name)
    assert browser.get(f"/call/{name}/me").json()["sub"] == "ada"
    time.sleep(SHORT + 0.2)
    assert browser.get(f"/call/{name}/me").json()["sub"] == "ada"
    assert browser.get(f"/sync/{name}/me").json()["sub"] == "ada"
    last = token(site, name)
    assert last.access_token != first.access_token
    assert last.dpop_key == first.dpop_key != ""


def test_the_token_alone_is_worth_nothing(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """The server wants the proof of the key that it knows: neither none nor another one will do."""
    site = make_real_site({"basic": table(issuer, "basic")})
    browser = login(site, person, "basic")
    held = token(site, "basic")
    for headers in (
        {"authorization": f"Bearer {held.access_token}"},
        {"authorization": f"DPoP {held.access_token}"},
    ):
        assert httpx2.get(f"{issuer}/me", headers=headers).status_code in (400, 401)
    described = httpx2.post(
        f"{issuer}/token/introspection", data={"token": held.access_token}, auth=("basic", SECRET)
    ).json()
    assert described["cnf"] == {"jkt": ProofKey(held.dpop_key).jkt}
    assert browser.get("/call/basic/me").json()["sub"] == "ada"


def test_without_dpop_the_server_refuses(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client
) -> None:
    """The server does insist: a table without the key gets no token."""
    site = make_real_site({"basic": table(issuer, "basic", dpop=False)})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "basic"))
    if "code" in callback.params:
        refused(browser, callback.send(browser), 502, "provider_misbehaved")
    else:  # it may say so at the authorization endpoint already
        refused(browser, callback.send(browser), 400, "provider_error")


def test_a_code_is_bound_to_its_key(
    issuer: str, make_real_site: MakeSite, person: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and verifier are not enough: the server knows the flow's key by `dpop_jkt` (section 10)."""
    site = make_real_site({"basic": table(issuer, "basic")})
    browser = site.browser()
    callback = login_oidc_provider(person, start(site, browser, "basic"))
    with monkeypatch.context() as patch:
        patch.setattr(Proofs, "key", lambda self, text: ANOTHER)
        refused(browser, callback.send(browser), 502, "provider_misbehaved")


def test_unlink_and_link_again(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """Revocation wants no proof; a new link has a new key."""
    site = make_real_site({"public": table(issuer, "public")})
    browser = login(site, person, "public")
    before = token(site, "public").dpop_key
    answer = browser.post(
        "/_oauth/public/unlink",
        json={},
        headers={**site.origin(), "x-csrf-token": site.csrf(browser), "accept": "application/json"},
    )
    assert answer.json() == {"unlinked": True, "revoked": True}
    callback = login_oidc_provider(person, start_link(site, browser, "public"))
    signed_in(site, callback.send(browser))
    assert browser.get("/call/public/me").json()["sub"] == "ada"
    assert token(site, "public").dpop_key != before


def second(issuer: str) -> dict[str, Any]:
    """The same server as a plain OAuth 2 provider, so that its API is the profile's."""
    return {
        "protocol": "oauth2",
        "dpop": True,
        "client_id": "basic",
        "client_secret": SECRET,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/me",
        "api_base_url": issuer,
        "scope": ["openid", "profile"],
        "profile": {"id": "sub", "username": "preferred_username"},
    }


def test_oauth2_without_discovery(issuer: str, make_real_site: MakeSite, person: httpx2.Client) -> None:
    """As plain OAuth 2 the profile is read with a proof too."""
    site = make_real_site({"basic": second(issuer)})
    browser = login(site, person, "basic")
    assert profile(browser)["username"] == "ada"
    assert browser.get("/call/basic/me").json()["sub"] == "ada"
