"""Users, links and profiles: who somebody is, what is theirs, and what happens when it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oauthgate.protocols import oauth2
from oauthgate.testing import Account, LocalProvider, running
from tests.support import KINDS, Kind, SiteUnderTest, make_config, make_provider, site_under_test

from .steps import post_json, probing, start, who

ALL = ["twitter", "spotify", "corp"]


@pytest.mark.parametrize("name", ALL)
def test_login_finds_the_same_user_again(site: SiteUnderTest, name: str) -> None:
    """The same account signs the same user in from any browser; another account is another user."""
    first, second, third = site.browser(), site.browser(), site.browser()
    site.login(first, name)
    site.login(second, name)
    site.login(third, name, account="grace")
    assert who(first)["user_id"] == who(second)["user_id"] != who(third)["user_id"]
    assert who(third)["links"] == [f"{name}:1002"]


def test_account_ids_are_compared_exactly(kind: Kind, tmp_path: Path) -> None:
    """Ids that differ in case, a leading zero or an accent are different accounts (row 45)."""
    provider = make_provider()
    ids = ["Abc", "abc", "007", "7", "é", "e\u0301"]
    for number, identifier in enumerate(ids):
        provider.accounts[identifier] = Account(id=identifier, username=f"u{number}")
    with running(provider) as url, site_under_test(kind, make_config(url, tmp_path)) as site:
        users = set()
        for number in range(len(ids)):
            browser = site.browser()
            site.login(browser, account=f"u{number}")
            users.add(who(browser)["user_id"])
        assert len(users) == len(ids)


def test_the_same_email_links_nothing(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Two accounts with one e-mail address stay two users: nothing is linked by e-mail (row 19)."""
    provider.accounts["1002"] = Account(id="1002", username="grace", email="ada@example.com")
    first, second = site.browser(), site.browser()
    site.login(first, "corp")
    site.login(second, "spotify", account="grace")
    assert who(first)["user_id"] != who(second)["user_id"]
    assert who(first)["links"] == ["corp:1001"]


def test_link_attaches_to_the_signed_in_user(site: SiteUnderTest) -> None:
    """Linking keeps the user and the session, and either account signs the same user in afterwards."""
    browser, other = site.browser(), site.browser()
    site.login(browser, "twitter")
    before = who(browser)
    session = browser.cookies.get("oauthgate")
    site.link(browser, "spotify", account="grace")
    after = who(browser)
    assert after["user_id"] == before["user_id"]
    assert after["services"] == ["spotify", "twitter"]
    assert browser.cookies.get("oauthgate") == session
    site.login(other, "spotify", account="grace")
    assert who(other)["user_id"] == before["user_id"]


def test_an_account_of_another_user_is_not_taken(site: SiteUnderTest) -> None:
    """Linking an account that another user owns is a 409 that names nobody and moves nothing (row
    19)."""
    owner, thief = site.browser(), site.browser()
    site.login(owner, "spotify")
    site.login(thief, "twitter", account="grace")
    owner_id = who(owner)["user_id"]
    answer = site.link(thief, "spotify")
    assert answer.status_code == 409
    assert owner_id not in answer.text and "1001" not in answer.text and "ada" not in answer.text.lower()
    assert who(thief)["links"] == ["twitter:1002"]
    assert who(owner)["links"] == ["spotify:1001"]
    assert owner.get("/call/spotify/me").json()["id"] == "1001"


def test_linking_an_account_again_renews_it(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Linking what is linked already gives it its new token and stays one link."""
    browser = site.browser()
    site.login(browser)
    provider.expire_access_tokens()
    provider.revoke_all()
    assert site.link(browser, "spotify").status_code == 303
    assert who(browser)["links"] == ["spotify:1001"]
    assert browser.get("/call/spotify/me").status_code == 200


def test_several_accounts_of_one_provider(site: SiteUnderTest) -> None:
    """Two accounts of one provider: each has its client; unlinking must say which one it means."""
    browser = site.browser()
    site.login(browser)
    site.link(browser, "spotify", account="grace")
    assert who(browser)["links"] == ["spotify:1001", "spotify:1002"]
    assert browser.get("/call/spotify/me").json()["id"] == "1001"
    for account in ("1001", "1002"):
        assert browser.get(f"/call/spotify:{account}/me").json()["id"] == account
    vague = post_json(site, browser, "/spotify/unlink")
    assert (vague.status_code, vague.json()["error"]) == (400, "invalid_request")
    assert post_json(site, browser, "/spotify/unlink", account_id="1001").status_code == 200
    assert who(browser)["links"] == ["spotify:1002"]
    assert browser.get("/call/spotify/me").json()["id"] == "1002"


def test_unlink_revokes_and_says_so(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Unlinking ends the grant at the provider (RFC 7009) and frees the account."""
    browser, other = site.browser(), site.browser()
    site.login(browser, "twitter")
    site.link(browser, "spotify")
    answer = post_json(site, browser, "/spotify/unlink")
    assert (answer.status_code, answer.json()) == (200, {"unlinked": True, "revoked": True})
    assert all(token.grant.revoked for token in provider.refresh_store.values())
    hints = [message.params["token_type_hint"] for message in provider.received("revoke")]
    assert hints == ["refresh_token", "access_token"]
    assert who(browser)["services"] == ["twitter"]
    site.login(other, "spotify")
    assert who(other)["user_id"] != who(browser)["user_id"]
    assert site.link(browser, "spotify").status_code == 409


def test_unlink_where_nothing_can_be_revoked(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """A provider without a revocation endpoint is reported as such: null, not false."""
    # The table is called as a preset is, and what it leaves out comes from there.
    config["providers"]["twitter"]["revocation_endpoint"] = ""
    site = make_site()
    browser = site.browser()
    site.login(browser, "twitter")
    site.link(browser, "spotify")
    assert post_json(site, browser, "/twitter/unlink").json() == {"unlinked": True, "revoked": None}
    again = post_json(site, browser, "/twitter/unlink")
    assert (again.status_code, again.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize("fault", [{"status": 503}, {"delay": 5.0}], ids=["down", "slow"])
def test_unlink_while_revocation_fails(
    site: SiteUnderTest, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """A provider that is down or slow does not keep a link alive here; the answer is honest (row
    111)."""
    monkeypatch.setattr(oauth2, "REVOCATION_DEADLINE", 0.2)
    browser = site.browser()
    site.login(browser, "twitter")
    site.link(browser, "spotify")
    provider.faults.set("revoke", **fault)
    assert post_json(site, browser, "/spotify/unlink").json() == {"unlinked": True, "revoked": False}
    assert who(browser)["services"] == ["twitter"]


def test_unlinking_the_last_account_keeps_the_session(site: SiteUnderTest) -> None:
    """Without a link left, the visitor is still signed in and can link again."""
    browser = site.browser()
    site.login(browser)
    user = who(browser)["user_id"]
    post_json(site, browser, "/spotify/unlink")
    assert who(browser) == {**who(browser), "user_id": user, "links": [], "services": []}
    assert site.link(browser, "spotify").status_code == 303
    assert who(browser)["user_id"] == user


@pytest.mark.parametrize("name", ALL)
def test_profiles_are_normalised_and_the_raw_answer_kept(
    kind: Kind, provider: LocalProvider, config: dict[str, Any], name: str
) -> None:
    """A handler sees the six common fields, and the provider's own answer beside them."""
    provider.accounts["1001"] = Account(
        id="1001",
        username="ada",
        name="Ada Lovelace",
        email="ada@example.com",
        picture="https://pictures.example/ada.png",
        extra={"favourite": {"number": 1815, "letters": ["a", "é"]}},
    )

    def probe(oauth: Any, services: Any) -> Any:
        link = oauth.links[0]
        fields = {key: getattr(link.profile, key) for key in link.profile.__struct_fields__}
        return {"profile": fields, "raw": link.raw, "same": link.profile == services[name].profile}

    if name != "corp":
        config["providers"][name]["profile"] = {
            key: key for key in ("id", "username", "name", "email", "email_verified", "picture")
        }
    with probing(kind, config, probe) as browser:
        started = browser.get(f"/_oauth/{name}/login")
        browser.get(SiteUnderTest.authorize(started.headers["location"]))
        found = browser.get("/").json()
    assert found["same"] is True
    assert found["profile"] == {
        "id": "1001",
        "username": "ada",
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "email_verified": True,
        "picture": "https://pictures.example/ada.png",
        "gender": None,
    }
    assert found["raw"]["favourite"] == {"number": 1815, "letters": ["a", "é"]}


def test_a_second_login_renews_profile_and_token(site: SiteUnderTest, provider: LocalProvider) -> None:
    """What changed at the provider is there after the next sign-in."""
    browser = site.browser()
    site.login(browser)
    provider.accounts["1001"] = Account(id="1001", username="countess", name="Ada King")
    site.login(browser, account="1001")
    assert who(browser)["profile"]["username"] == "countess"
    assert who(browser)["links"] == ["spotify:1001"]


def test_a_chain_links_one_after_the_other(site: SiteUnderTest) -> None:
    """`then=` links further providers after the sign-in, and ends at the page asked for."""
    browser = site.browser()
    answer = browser.get(site.authorize(start(site, browser, "twitter", then="spotify,corp")))
    for _ in range(2):
        answer = browser.get(site.authorize(answer.headers["location"]))
    assert answer.headers["location"] == f"{site.base}/who"
    assert who(browser)["services"] == ["corp", "spotify", "twitter"]


@pytest.mark.parametrize("how", ["deny", "discovery_down", "token_down"])
def test_a_chain_keeps_what_it_has_when_a_step_fails(
    site: SiteUnderTest, provider: LocalProvider, how: str
) -> None:
    """A step that is denied or cannot be made ends the chain; the sign-in before it stands."""
    browser = site.browser()
    if how == "discovery_down":
        provider.faults.set("discovery", status=503)
    step = browser.get(site.authorize(start(site, browser, "twitter", then="corp,spotify")))
    if how == "deny":
        step = browser.get(site.authorize(step.headers["location"], deny=True))
        assert step.status_code == 400
    elif how == "token_down":
        provider.faults.set("token", status=500)
        step = browser.get(site.authorize(step.headers["location"]))
        assert step.status_code in (502, 503)
    else:
        assert step.status_code == 503
    assert who(browser)["services"] == ["twitter"]
    provider.faults.clear()
    assert site.link(browser, "spotify").status_code == 303


@pytest.mark.parametrize("chain", ["nosuch", "spotify,spotify", "spotify,__class__"])
def test_a_chain_of_unknown_or_repeated_providers_is_refused(site: SiteUnderTest, chain: str) -> None:
    """A chain names configured providers, each once; otherwise nothing is started."""
    answer = site.browser().get("/_oauth/twitter/login", params={"then": chain})
    assert answer.status_code in (400, 404)
    assert "set-cookie" not in answer.headers


def carrying(config: dict[str, Any]) -> None:
    config["providers"]["spotify"]["carry"] = {
        "pin": {"max_length": 4, "pattern": "[0-9]{4}"},
        "email": {"max_length": 100},
    }


def test_carry_fields_are_kept_with_the_link(
    kind: Kind, config: dict[str, Any], provider: LocalProvider
) -> None:
    """Declared fields travel through the flow into the link; others do not."""
    carrying(config)
    with probing(
        kind, config, lambda oauth, services: [dict(link.extra) for link in oauth.links]
    ) as browser:
        query = {"pin": "1234", "email": "x+y@example.com", "admin": "1"}
        started = browser.get("/_oauth/spotify/login", params=query)
        assert "1234" not in started.headers["location"]
        browser.get(SiteUnderTest.authorize(started.headers["location"]))
        assert browser.get("/").json() == [{"pin": "1234", "email": "x+y@example.com"}]


@pytest.mark.parametrize("pin", ["12345", "abcd", "12\n4", "", "\u0661\u0662\u0663\u0664", "1" * 9999])
def test_carry_fields_are_validated(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], pin: str
) -> None:
    """A carried value that breaks its rule starts no flow."""
    carrying(config)
    answer = make_site().browser().get("/_oauth/spotify/login", params={"pin": pin})
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


def test_kinds() -> None:
    """Every scenario above runs over both adapters."""
    assert KINDS == ["asgi", "wsgi"]
