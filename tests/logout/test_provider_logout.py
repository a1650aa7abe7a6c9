"""Logout that begins at the provider (row 111): the back-channel matrix, and the front channel."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.stepping import iterate
from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def browsers(site: SiteUnderTest) -> list[httpx2.Client]:
    """Two browsers of ada, signed in at the OpenID provider, and one of grace."""
    found = []
    for account in ("ada", "ada", "grace"):
        browser = site.browser()
        assert site.login(browser, "corp", account).status_code == 303
        found.append(browser)
    return found


def provider_sids(site: SiteUnderTest) -> list[str]:
    """The `sid`s of ada's sessions, the oldest first."""
    with oauthgate.open(site.config) as gate:
        users = list(iterate(gate._gate.vault.users()))
    (ada,) = [user for user in users if user.links[0].account_id == "1001"]
    return [session.sid for session in sorted(ada.sessions, key=lambda held: held.created)]


def claims(provider: LocalProvider, **changes: Any) -> dict[str, Any]:
    """A good logout token for ada, changed; None removes a claim."""
    now = int(time.time())
    found: dict[str, Any] = {
        "iss": provider.issuer,
        "aud": "corp-client",
        "iat": now,
        "exp": now + 120,
        "jti": secrets.token_urlsafe(16),
        "events": {EVENT: {}},
        "sub": "1001",
    }
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}


def send(
    site: SiteUnderTest, provider: LocalProvider, content: dict[str, Any], **sign: str
) -> httpx2.Response:
    """Deliver a logout token, as the provider's server would: without a browser and its cookies."""
    token = provider.sign_jwt(content, client_id="corp-client", **{"typ": "logout+jwt", **sign})
    return site.browser().post("/_oauth/corp/backchannel-logout", data={"logout_token": token})


def signed_in(browsers: list[httpx2.Client]) -> list[bool]:
    return [browser.get("/_oauth/session").status_code == 200 for browser in browsers]


def test_sub_ends_all_sessions_of_the_account(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client]
) -> None:
    """A token that names the subject ends every session of that account, and nobody else's."""
    answer = send(site, provider, claims(provider))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert signed_in(browsers) == [False, False, True]


@pytest.mark.parametrize("with_sub", [True, False])
def test_sid_ends_one_session(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client], with_sub: bool
) -> None:
    """A token that names a session ends that one, with or without the subject beside it."""
    (first, *_) = provider_sids(site)
    answer = send(site, provider, claims(provider, sid=first, sub="1001" if with_sub else None))
    assert answer.status_code == 200
    assert signed_in(browsers) == [False, True, True]


REFUSED: dict[str, dict[str, Any]] = {
    "no-event": {"events": None},
    "wrong-event": {"events": {"http://schemas.openid.net/event/foobar": {}}},
    "event-not-an-object": {"events": {EVENT: "yes"}},
    "with-nonce": {"nonce": "n"},
    "wrong-aud": {"aud": "corp-client1"},
    "extra-aud": {"aud": ["corp-client", "other"]},
    "wrong-iss": {"iss": "http://127.0.0.1:1/INVALID"},
    "no-iat": {"iat": None},
    "old-iat": {"iat": 1_600_000_000},
    "no-exp": {"exp": None},
    "expired": {"exp": 1_600_000_000},
    "no-jti": {"jti": None},
    "jti-not-text": {"jti": 7},
    "neither-sub-nor-sid": {"sub": None},
    "sub-not-text": {"sub": 1001},
    "sid-not-text": {"sid": ["a"]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_logout_tokens_are_refused(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client], name: str
) -> None:
    """A logout token with a wrong or missing claim gets 400 and ends nothing."""
    answer = send(site, provider, claims(provider, **REFUSED[name]))
    assert answer.status_code == 400
    assert answer.headers["cache-control"] == "no-store"
    assert signed_in(browsers) == [True, True, True]


TAMPER: dict[str, Callable[[LocalProvider], None]] = {
    "alg-none": lambda provider: setattr(provider.faults, "sign_with", "none"),
    "hs256-with-the-public-key": lambda provider: setattr(
        provider.faults, "sign_with", "hs256_public_key"
    ),
    "another-key": lambda provider: setattr(provider.faults, "sign_with", "other_key"),
    "wrong-alg": lambda provider: setattr(provider, "id_token_signed_response_alg", "ES256"),
}


@pytest.mark.parametrize("name", TAMPER)
def test_badly_signed_logout_tokens_are_refused(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client], name: str
) -> None:
    """Unsigned, wrongly signed and differently signed logout tokens end nothing."""
    TAMPER[name](provider)
    assert send(site, provider, claims(provider)).status_code == 400
    assert signed_in(browsers) == [True, True, True]


def test_replay_and_wrong_types(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client]
) -> None:
    """A logout token works once; an ID token is none; unknown subjects are no error."""
    content = claims(provider, sub="nobody")
    assert send(site, provider, content).status_code == 200
    assert send(site, provider, content).status_code == 400
    assert send(site, provider, claims(provider), typ="at+jwt").status_code == 400
    browser = site.browser()
    assert browser.post("/_oauth/corp/backchannel-logout", data={"x": "y"}).status_code == 400
    assert browser.get("/_oauth/corp/backchannel-logout").status_code == 405
    assert (
        browser.post("/_oauth/spotify/backchannel-logout", data={"logout_token": "x"}).status_code == 404
    )
    assert signed_in(browsers) == [True, True, True]


def test_front_channel_ends_the_session_without_a_cookie(
    site: SiteUnderTest, provider: LocalProvider, browsers: list[httpx2.Client]
) -> None:
    """The provider's frame ends the session it names, sees no cookie, and can be framed there alone."""
    (first, *_) = provider_sids(site)
    frame = site.browser()
    answer = frame.get("/_oauth/corp/frontchannel-logout", params={"iss": provider.issuer, "sid": first})
    assert answer.status_code == 200
    assert f"frame-ancestors {provider.issuer}" in answer.headers["content-security-policy"]
    assert signed_in(browsers) == [False, True, True]
    for bad in ({"iss": "http://evil.example", "sid": first}, {"iss": provider.issuer}, {}):
        answer = frame.get("/_oauth/corp/frontchannel-logout", params=bad)
        assert answer.status_code == 400
    assert provider.count["revoke"] == 0
