"""What a third reading of hand-overs, sign-outs and configuration found, by a stranger and attacker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate import Config, ConfigError
from oauthgate.testing import LocalProvider
from tests.handover.conftest import app, config, spotify_app
from tests.handover.steps import FrontEnd, bearer, hand_over, records, who
from tests.support import BASE, SiteUnderTest

__all__ = ["app", "config", "spotify_app"]

MakeSite = Callable[[], SiteUnderTest]


@pytest.mark.parametrize(
    "rule", [{"required_claims": {"hd": ["example.com"]}}, {"max_age": 60}], ids=str
)
def test_an_access_token_evades_no_rule_for_id_tokens(
    make_site: MakeSite, config: dict[str, Any], app: FrontEnd, rule: dict[str, Any]
) -> None:
    """What only an ID token tells, an access token does not prove: it is refused, and nothing stored."""
    config["providers"]["corp"].update(rule)
    site = make_site()
    answer = hand_over(site, app.access_token())
    assert (answer.status_code, answer.json()["error"]) == (404, "handover_disabled")
    assert not records(site)


@pytest.mark.parametrize("known", [False, True])
def test_an_id_token_evades_no_deny_by_address(
    make_site: MakeSite, config: dict[str, Any], app: FrontEnd, provider: LocalProvider, known: bool
) -> None:
    """An ID token may leave out the address, which here only the user information tells: whoever may be
    the one who is denied is refused, and one that tells another address is not."""
    site = make_site()
    if known:
        assert hand_over(site, app.code()).status_code == 201
    config["access"] = {"deny": ["ada@example.com"]}
    site = make_site()
    before = records(site)
    for given in (app.id_token(), app.access_token(), app.code()):
        answer = hand_over(site, given)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_allowed")
    assert records(site) == before
    provider.faults.tamper_id_token = lambda claims, _: {**claims, "email": "grace@example.com"}
    assert hand_over(site, app.id_token("grace")).status_code == 201


def test_the_tokens_of_a_code_belong_together(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider
) -> None:
    """Row 39: an `at_hash` of another access token is refused, as in a browser's sign-in."""
    provider.faults.tamper_id_token = lambda claims, _: {**claims, "at_hash": "x" * 22}
    answer = hand_over(site, app.code())
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert not records(site)


def test_refused_at_start(config: dict[str, Any]) -> None:
    """No rule that nobody is held to, no client without an id, and no codes of the gate's own flows: a
    code that leaked from a callback would open a session without the flow's cookie."""
    spotify = config["providers"]["spotify"]
    for wrong, word in (
        ({"required_claims": {"hd": ["example.com"]}}, "required_claims"),
        ({"client_id": ""}, "client_id: missing"),
        ({"handover_redirect_uris": [f"{BASE}/_oauth/spotify/callback"]}, "the gate's own"),
    ):
        providers = {**config["providers"], "spotify": {**spotify, **wrong}}
        with pytest.raises(ConfigError, match=word):
            Config.load({**config, "providers": providers})
    spotify["handover_redirect_uris"] = [f"{BASE}/_oauths"]
    Config.load(config)


def sign_out(site: SiteUnderTest, browser: httpx2.Client, **headers: str) -> str:
    """Sign out by script; the address of the gate's that leads on to the provider."""
    answer = browser.post("/_oauth/logout", json={}, headers=headers)
    url = answer.json()["end_session_url"]
    assert isinstance(url, str), answer.text
    return url


def test_a_sign_out_leads_on_in_its_own_browser(site: SiteUnderTest) -> None:
    """The ID token is in the provider's address, and a script could send ours to a server of its own."""
    browser = site.browser()
    site.login(browser, "corp")
    url = sign_out(site, browser, origin=BASE, **{"x-csrf-token": site.csrf(browser)})
    thief = site.browser()
    site.login(thief, "corp", "grace")
    sign_out(site, thief, origin=BASE, **{"x-csrf-token": site.csrf(thief)})
    for stranger in (site.browser(), thief):
        answer = stranger.get(url)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "id_token_hint=" in browser.get(url).headers["location"]
    assert browser.get(url).status_code == 400, "once"


def test_a_sign_out_of_a_client_without_cookies(site: SiteUnderTest, app: FrontEnd) -> None:
    """A native application opens the address in a browser that has nothing of ours."""
    token = hand_over(site, app.code()).json()["session_token"]
    answer = site.browser().post("/_oauth/logout", headers=bearer(token))
    assert "set-cookie" not in answer.headers
    assert site.browser().get(answer.json()["end_session_url"]).status_code == 303


@pytest.mark.parametrize("form", ["code", "id_token"])
def test_a_logout_at_the_provider_ends_what_was_handed_over(
    site: SiteUnderTest, app: FrontEnd, provider: LocalProvider, form: str
) -> None:
    """The provider may name its session alone (`sid`): what was handed over is found by it too."""
    sids: list[str] = []
    provider.faults.tamper_id_token = lambda claims, _: sids.append(claims["sid"])
    given = app.code() if form == "code" else app.id_token()
    token = hand_over(site, given).json()["session_token"]
    assert who(site, token)
    query = {"iss": provider.issuer, "sid": sids[-1]}
    assert site.browser().get("/_oauth/corp/frontchannel-logout", params=query).status_code == 200
    assert who(site, token) is None


def test_a_nonce_has_a_length(site: SiteUnderTest, app: FrontEnd) -> None:
    """What is looked up and compared is bounded: 255 characters are a nonce, 256 are none."""
    assert hand_over(site, app.id_token(nonce="n" * 255)).status_code == 201
    answer = hand_over(site, app.id_token(nonce="n" * 256))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
