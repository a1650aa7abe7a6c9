"""Several accounts of one provider: labels, a default, and scopes that are asked for later."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.services import Services
from oauthgate.testing import LocalProvider
from tests.support import PAGE, SiteUnderTest


@pytest.fixture
def browser(site: SiteUnderTest) -> httpx2.Client:
    """A browser signed in with two Spotify accounts, ada's first."""
    found = site.browser()
    site.login(found, "spotify", "ada")
    site.link(found, "spotify", "grace")
    return found


def test_label_and_default(site: SiteUnderTest, browser: httpx2.Client) -> None:
    """A label names an account in `services["spotify:work"]`; the default needs no label."""
    assert browser.get("/call/spotify/me").json()["username"] == "ada"
    assert browser.get("/call/spotify:1002/me").json()["username"] == "grace"
    answer = site.post(browser, "/spotify/account", account_id="1002", label="work", default="1")
    assert answer.status_code == 303
    assert browser.get("/call/spotify:work/me").json()["username"] == "grace"
    assert browser.get("/call/spotify/me").json()["username"] == "grace"
    links = browser.get("/_oauth/session").json()["links"]
    assert [(link["account_id"], link["label"]) for link in links] == [("1001", ""), ("1002", "work")]
    page = browser.get("/_oauth/", headers=PAGE).text
    assert 'value="work"' in page


def test_label_by_json(site: SiteUnderTest, browser: httpx2.Client) -> None:
    """A front end chooses label and default by JSON; an unusable label is refused."""
    headers = {**site.origin(), "x-csrf-token": site.csrf(browser), "accept": "application/json"}
    body = {"account_id": "1001", "label": "home", "default": True}
    answer = browser.post("/_oauth/spotify/account", json=body, headers=headers)
    assert answer.json() == {"account_id": "1001", "label": "home", "default": True}
    for label in ("a:b", "x" * 41, "\x07", "1002"):
        body = {"account_id": "1001", "label": label}
        assert browser.post("/_oauth/spotify/account", json=body, headers=headers).status_code == 400
    assert (
        browser.post("/_oauth/spotify/account", json={"account_id": "9"}, headers=headers).status_code
        == 404
    )


def test_unlink_says_which(site: SiteUnderTest, browser: httpx2.Client) -> None:
    """With two accounts of a provider an unlink must name one of them."""
    assert site.post(browser, "/spotify/unlink").status_code == 400
    assert site.post(browser, "/spotify/unlink", account_id="1001").status_code == 303
    assert browser.get("/call/spotify/me").json()["username"] == "grace"


def test_missing_scope_is_asked_for(
    site: SiteUnderTest, provider: LocalProvider, config: dict[str, Any]
) -> None:
    """`require` sends the visitor to the link page, which asks for what is missing and comes back."""
    provider.withheld_scope.add("tweets")
    browser = site.browser()
    site.login(browser, "spotify")
    provider.withheld_scope.clear()
    answer = browser.get("/require?scope=tweets", headers=PAGE)
    assert answer.status_code == 303
    url = answer.headers["location"]
    page = browser.get(url, headers=PAGE)
    assert page.status_code == 200 and "tweets" in page.text
    ask = httpx2.URL(url).params["ask"]
    started = site.post(browser, "/spotify/link", next="/require?scope=tweets", ask=ask)
    asked = httpx2.URL(started.headers["location"]).params["scope"]
    assert sorted(asked.split()) == ["player", "tweets"]
    back = browser.get(site.authorize(started.headers["location"]))
    assert back.headers["location"] == f"{site.base}/require?scope=tweets"
    assert browser.get("/require?scope=tweets").json() == {"scope": ["player", "tweets"]}


def test_a_forged_ask_is_refused(site: SiteUnderTest, browser: httpx2.Client) -> None:
    """Nobody but the application chooses scopes (row 27)."""
    for ask in ("tweets", "A" * 80, "A" * 3000):
        assert browser.get(f"/_oauth/spotify/link?ask={ask}").status_code == 400
        assert site.post(browser, "/spotify/link", ask=ask).status_code == 400


def test_an_unknown_provider_is_named(site: SiteUnderTest) -> None:
    """A misspelt service names those that are configured."""
    with pytest.raises(oauthgate.UnknownProvider, match="corp, spotify, twitter"):
        Services(site.gate.source(oauthgate.SyncService))["spotfy"]
