"""Token substitution: what was issued to another application opens nothing here (rows 63 and 64).

Each refusal is looked at from the store: no user, no link, no session, no claim of an account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest

from .steps import APP, FrontEnd, hand_over, records

Json = dict[str, Any]


def refused(
    site: SiteUnderTest,
    body: Json,
    provider: str = "corp",
    *,
    code: str = "invalid_token",
    status: int = 401,
) -> httpx2.Response:
    """Hand over what must be refused; the store is as it was, whether anybody is known yet or not."""
    before = records(site)
    answer = hand_over(site, body, provider)
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert "session_token" not in answer.text
    assert records(site) == before
    return answer


@pytest.mark.parametrize("known", [False, True])
def test_access_token_of_another_app(
    site: SiteUnderTest, other_app: FrontEnd, provider: LocalProvider, known: bool
) -> None:
    """Row 63: refused for the provider's `token_info`, by its number of the app, and never used."""
    if known:
        site.login(site.browser(), "spotify")
    provider.count.clear()
    refused(site, other_app.access_token(scope="player"), "spotify")
    assert (provider.count["token_info"], provider.count["me"]) == (1, 0)


@pytest.mark.parametrize("tells", [False, True])
def test_introspection_of_another_apps_token(
    site: SiteUnderTest, other_app: FrontEnd, provider: LocalProvider, tells: bool
) -> None:
    """Row 63: refused by RFC 7662, whether the server says "not active" or tells of any token."""
    provider.introspect_any = tells
    refused(site, other_app.access_token())
    assert (provider.count["introspect"], provider.count["userinfo"]) == (1, 0)


def test_id_token_of_another_app(site: SiteUnderTest, other_app: FrontEnd) -> None:
    """Row 64: a good ID token for another client is refused."""
    refused(site, other_app.id_token())


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["corp-client", "other-client"]}, {"aud": ["other-client"]}, {"aud": []},
        {"aud": "corp-client1"},
        {"azp": "other-client"}, {"iss": "https://evil.example"}, {"aud": None}, {"sub": ""},
        {"sub": 1001},
        {"events": {}},
    ],
)  # fmt: skip
def test_id_token_with_other_claims(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider, claims: Json
) -> None:
    """Row 37, row 64: another audience beside ours, another authorized party, another issuer."""
    provider.faults.tamper_id_token = lambda found, header: {**found, **claims}
    refused(site, app.id_token())


@pytest.mark.parametrize("how", ["none", "hs256_public_key", "other_key"])
def test_id_token_with_another_signature(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider, how: Any
) -> None:
    """Rows 33 to 35: unsigned, signed by the public key's text, signed by a stranger."""
    provider.faults.sign_with = how
    refused(site, app.id_token())


def test_code_of_another_app(site: SiteUnderTest, other_app: FrontEnd, provider: LocalProvider) -> None:
    """A code that was issued to another client is refused by the token endpoint, and nothing is read."""
    refused(site, other_app.code(), code="invalid_grant", status=400)
    assert (provider.count["token"], provider.count["userinfo"]) == (1, 0)


def test_code_of_another_app_for_another_address(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider
) -> None:
    """Only the configured addresses, letter for letter; the token endpoint is not even asked."""
    given = app.code()
    provider.count.clear()
    for uri in (
        "http://localhost/_oauth/corp/callback", f"{APP}/", APP.upper(), f"{APP}?x=1",
        "com.example.app:/x",
        "https://evil.example/", f" {APP}",
    ):  # fmt: skip
        refused(site, {**given, "redirect_uri": uri}, code="invalid_request", status=400)
    assert not provider.count["token"]
    assert hand_over(site, given).status_code == 201


# -- what the provider says of a token: anything but a plain yes is a no

WRONG: list[Json] = [
    {"app_id": 654321}, {"app_id": "777 "}, {"app_id": "0777"}, {"app_id": 777.0}, {"app_id": True},
    {"app_id": None}, {"app_id": [777, 654321]}, {"app_id": []}, {"app_id": {"777": True}},
    {"app_id": ""},
    {"app_id": "*"}, {"app_id": "７７７"}, {"app_id": 7770}, {"app_id": "777\u0000"},
    {"app_id": [[777]]},
    {"expires_in": 0}, {"expires_in": -1}, {"expires_in": "0"}, {"exp": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_token_info_that_is_no_yes(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider, wrong: Json
) -> None:
    """Row 63: the number is compared as a number or as its digits, and as nothing else."""
    provider.faults.tamper_token_info = lambda found: {**found, **wrong}
    refused(site, spotify_app.access_token(scope="player"), "spotify")
    assert provider.count["me"] == 0


@pytest.mark.parametrize(
    "right", [{"app_id": "777"}, {"app_id": [777]}, {"expires_in": "3600"}], ids=str
)
def test_token_info_that_is_a_yes(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider, right: Json
) -> None:
    """The same number as text, or alone in a list, is the same."""
    provider.faults.tamper_token_info = lambda found: {**found, **right}
    given = spotify_app.access_token(scope="player")
    assert hand_over(site, given, "spotify").status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        {"active": False}, {"active": "true"}, {"active": 1}, {"active": None}, {"active": [True]},
        {"client_id": "other-client"}, {"client_id": None}, {"client_id": 1},
        {"client_id": "corp-client1"},
        {"client_id": "other-client", "aud": "corp-client"}, {"client_id": "CORP-CLIENT"},
    ],
    ids=str,
)  # fmt: skip
def test_introspection_that_is_no_yes(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider, wrong: Json
) -> None:
    """RFC 7662: `active` must be true itself, and `client_id` ours; an `aud` does not say whose."""
    provider.faults.tamper_token_info = lambda found: {**found, **wrong}
    refused(site, app.access_token())


@pytest.mark.parametrize("name", ["app_id", "client_id", "active"])
def test_a_missing_field_is_no_yes(
    site: SiteUnderTest, app: FrontEnd, spotify_app: FrontEnd, provider: LocalProvider, name: str
) -> None:
    """Without the field there is no proof."""
    provider.faults.tamper_token_info = lambda found: {
        key: value for key, value in found.items() if key != name
    }
    if name == "app_id":
        refused(site, spotify_app.access_token(scope="player"), "spotify")
    else:
        refused(site, app.access_token())


@pytest.mark.parametrize("body", [b"", b"[]", b"777", b'{"app_id": 1, "app_id": 777}', b"<html>"])
def test_token_info_that_is_no_json(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider, body: bytes
) -> None:
    """An answer with two meanings, or none, is the provider's defect: 502."""
    given = spotify_app.access_token(scope="player")
    provider.faults.set("token_info", body=body, content_type="application/json")
    refused(site, given, "spotify", code="provider_misbehaved", status=502)


def test_token_info_that_redirects(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider
) -> None:
    """Row 80: the token is not carried on to another address."""
    given = spotify_app.access_token(scope="player")
    provider.faults.set("token_info", status=302, headers={"location": "https://evil.example/"})
    refused(site, given, "spotify", code="provider_misbehaved", status=502)


def test_introspection_needs_a_client_that_can_prove_itself(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], app: FrontEnd
) -> None:
    """A public client cannot ask, so a published introspection endpoint is no way of proof for it."""
    corp = config["providers"]["corp"]
    corp["token_endpoint_auth_method"] = "none"
    del corp["client_secret"]
    refused(make_site(), app.access_token(), code="handover_disabled", status=404)


def test_introspection_that_refuses_this_client(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], app: FrontEnd
) -> None:
    """A wrong secret of ours is not the token's fault: 502, and the log says what to look at."""
    config["providers"]["corp"]["client_secret"] = "w" * 32
    answer = refused(make_site(), app.access_token(), code="provider_misbehaved", status=502)
    assert "client_secret" in answer.json()["error_description"]


def test_data_of_token_info(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    spotify_app: FrontEnd,
    other_app: FrontEnd,
    provider: LocalProvider,
    provider_url: str,
) -> None:
    """The request is data: introspection spelt out as `token_info` asks the same."""
    config["providers"]["spotify"]["token_info"] = {
        "url": f"{provider_url}/oauth2/introspect", "method": "POST", "auth": "basic",
        "params": {"token": "{access_token}"}, "active": "active", "field": "client_id",
    }  # fmt: skip
    provider.introspect_any = True
    site = make_site()
    refused(site, other_app.access_token(scope="player"), "spotify")
    given = spotify_app.access_token(scope="player")
    assert hand_over(site, given, "spotify").status_code == 201
    assert provider.count["token_info"] == 0
