"""ID tokens and codes are good for one hand-over, right after the sign-in they come from (row 64)."""

from __future__ import annotations

import base64
import threading
from typing import Any

import httpx2
import pytest

from oauthgate.testing import LocalProvider
from tests.flows.steps import Clock, start
from tests.support import SiteUnderTest

from .steps import FrontEnd, hand_over, records


def outcome(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


def test_id_token_again(site: SiteUnderTest, app: FrontEnd) -> None:
    """Row 64: the second time is a replay, also by somebody else, and makes no session."""
    given = app.id_token()
    assert hand_over(site, given).status_code == 201
    before = records(site)
    for _ in range(2):
        assert outcome(hand_over(site, given)) == (401, "invalid_token")
    assert records(site) == before


def test_id_token_spelt_in_another_way(site: SiteUnderTest, app: FrontEnd) -> None:
    """A signature has more than one spelling in base64; a token is remembered by what it says."""
    given = app.id_token()
    assert hand_over(site, given).status_code == 201
    head, payload, signature = given["id_token"].split(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = [
        f"{head}.{payload}.{signature[:-1]}{last}"
        for last in alphabet
        if last != signature[-1]
        and base64.urlsafe_b64decode(signature[:-1] + last + "=" * (-len(signature) % 4)) == raw
    ]
    assert spare, "the last letter of an RS256 signature has bits that mean nothing"
    for token in spare:
        assert outcome(hand_over(site, {**given, "id_token": token})) == (401, "invalid_token")


def test_a_nonce_again(site: SiteUnderTest, app: FrontEnd) -> None:
    """A nonce is for one sign-in of a person: another ID token with it is refused."""
    assert hand_over(site, app.id_token(nonce="constant")).status_code == 201
    assert outcome(hand_over(site, app.id_token(nonce="constant"))) == (401, "invalid_token")
    assert hand_over(site, app.id_token("grace", nonce="constant")).status_code == 201


@pytest.mark.parametrize("given", ["other", "n", "nonc", "nonce1", "NONCE", "nöncé"])
def test_another_nonce(site: SiteUnderTest, app: FrontEnd, given: str) -> None:
    """Row 23: the nonce must be the one in the token, and trying a wrong one uses nothing up."""
    token = app.id_token(nonce="nonce")
    assert outcome(hand_over(site, {**token, "nonce": given})) == (401, "invalid_token")
    assert hand_over(site, token).status_code == 201


def test_an_id_token_without_a_nonce(site: SiteUnderTest, app: FrontEnd) -> None:
    """Without a nonce in it a token cannot be told from one that was found: refused."""
    token = app.tokens()["id_token"]
    assert outcome(hand_over(site, {"id_token": token, "nonce": "n"})) == (401, "invalid_token")
    refreshed = {"id_token": token}
    assert outcome(hand_over(site, refreshed)) == (400, "invalid_request")


def test_an_id_token_of_the_sites_own_flow(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider
) -> None:
    """Our own sign-ins' ID tokens travel as `id_token_hint`: one that is found there opens nothing."""
    browser = site.browser()
    url = httpx2.URL(start(site, browser, "corp"))
    nonce = url.params["nonce"]
    token = app.id_token(nonce=nonce)
    assert outcome(hand_over(site, token)) == (401, "invalid_token")
    assert outcome(hand_over(site, {**app.code(nonce=nonce), "nonce": nonce})) == (401, "invalid_token")
    assert not records(site)


@pytest.mark.parametrize("age", [610, 3500, 4000])
def test_an_old_id_token(site: SiteUnderTest, app: FrontEnd, clock: Clock, age: int) -> None:
    """Row 64: an ID token is handed over right after the sign-in; one of ten minutes ago is refused."""
    given = app.id_token()
    clock.advance(age, site.gate)
    assert outcome(hand_over(site, given)) == (401, "invalid_token")


def test_an_id_token_is_remembered_until_it_is_too_old(
    site: SiteUnderTest, app: FrontEnd, clock: Clock
) -> None:
    """There is no moment at which the marker is gone and the token still good."""
    given = app.id_token()
    assert hand_over(site, given).status_code == 201
    for _ in range(30):
        clock.advance(30, site.gate)
        assert outcome(hand_over(site, given)) == (401, "invalid_token")


def test_another_kind_of_token(site: SiteUnderTest, app: FrontEnd, provider: LocalProvider) -> None:
    """Row 43: an access token or a logout token in JWT form is no ID token."""
    for typ in ("at+jwt", "application/at+jwt", "logout+jwt", "secevent+jwt"):
        provider.faults.tamper_id_token = lambda claims, header, typ=typ: (
            claims,
            {**header, "typ": typ},
        )
        assert outcome(hand_over(site, app.id_token())) == (401, "invalid_token")
    provider.faults.tamper_id_token = lambda claims, header: (
        claims,
        {name: value for name, value in header.items() if name != "typ"},
    )
    assert hand_over(site, app.id_token()).status_code == 201


@pytest.mark.parametrize("token", ["a.b.c", "x" * 60_000, "....", "a.b", "é.b.c", "e30.e30.e30"])
def test_no_token_at_all(site: SiteUnderTest, provider: LocalProvider, token: str) -> None:
    """Row 44: what is no JWT is refused, and fetches no keys."""
    assert outcome(hand_over(site, {"id_token": token, "nonce": "n"})) == (401, "invalid_token")
    assert provider.count["jwks"] == 0


def test_code_again(site: SiteUnderTest, app: FrontEnd, provider: LocalProvider) -> None:
    """A code is sent to the provider once, whatever comes back; the first one's session stays."""
    given = app.code()
    assert hand_over(site, given).status_code == 201
    before, asked = records(site), provider.count["token"]
    assert outcome(hand_over(site, given)) == (400, "invalid_grant")
    assert provider.count["token"] == asked
    assert records(site) == before


def test_code_at_once(site: SiteUnderTest, app: FrontEnd, provider: LocalProvider) -> None:
    """Two deliveries at the same moment make one token request and one session."""
    given, answers = app.code(), list[int]()
    asked = provider.count["token"]
    browsers = [site.browser() for _ in range(4)]
    threads = [
        threading.Thread(
            target=lambda browser=browser: answers.append(
                browser.post("/_oauth/corp/token", json=given).status_code
            )
        )
        for browser in browsers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 400, 400, 400]
    assert provider.count["token"] == asked + 1


def test_code_with_another_verifier(site: SiteUnderTest, app: FrontEnd) -> None:
    """Row 21: a code is worth nothing without the verifier of its request."""
    given = app.code()
    assert outcome(hand_over(site, {**given, "code_verifier": "v" * 43})) == (400, "invalid_grant")
    assert not records(site)


def test_code_and_nonce(site: SiteUnderTest, app: FrontEnd) -> None:
    """A nonce that was sent with the request must be handed over too, and none that was not."""
    cases: list[tuple[dict[str, str], dict[str, str], int]] = [
        ({"nonce": "mine"}, {"nonce": "mine"}, 201),
        ({"nonce": "mine"}, {}, 401),
        ({"nonce": "mine"}, {"nonce": "other"}, 401),
        ({}, {"nonce": "mine"}, 401),
    ]
    for asked, handed, status in cases:
        answer = hand_over(site, {**app.code(**asked), **handed})
        assert answer.status_code == status, answer.text


def test_code_of_a_bound_token(make_site: Any, config: dict[str, Any], app: FrontEnd) -> None:
    """With DPoP a code is redeemed with a key of our own; an access token is nothing without its key."""
    config["providers"]["corp"]["dpop"] = True
    site = make_site()
    assert hand_over(site, app.code()).status_code == 201
    assert outcome(hand_over(site, app.access_token())) == (404, "handover_disabled")
