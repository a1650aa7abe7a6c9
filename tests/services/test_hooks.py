"""Hooks: told of everything, able to refuse a sign-in or a link, unable to harm anything else."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import oauthgate
from oauthgate.hooks import HOOK_NAMES
from oauthgate.testing import LocalProvider
from tests.support import PAGE, Kind, SiteUnderTest, site_under_test


class Recorder:
    """Keeps the events it is told; raises what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[oauthgate.Event] = []
        self.error = error

    def __call__(self, event: oauthgate.Event) -> None:
        self.events.append(event)
        if self.error is not None:
            raise self.error

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


def test_every_hook_is_told(kind: Kind, config: dict[str, Any], provider: LocalProvider) -> None:
    """Sign-in, link, refresh, the end of a grant, unlink and sign-out each reach their hook once."""
    recorder = Recorder()
    config["providers"]["spotify"]["refresh_leeway"] = 1
    with site_under_test(kind, config, hooks=dict.fromkeys(HOOK_NAMES, recorder)) as site:
        browser = site.browser()
        site.login(browser, "twitter")
        site.link(browser, "spotify")
        provider.expire_access_tokens()
        assert browser.get("/call/spotify/me").status_code == 200
        provider.revoke_all()
        assert browser.get("/call/spotify/me").status_code == 401
        site.post(browser, "/spotify/unlink")
        site.post(browser, "/logout")
    assert recorder.names == ["login", "linked", "refreshed", "reauth_required", "unlinked", "logout"]
    login, linked = recorder.events[:2]
    assert login.new_user and not linked.new_user
    assert login.user_id == linked.user_id
    assert linked.link is not None and linked.link.account_id == "1001"


@pytest.mark.parametrize("colour", ["plain", "async"])
def test_login_hook_refuses_with_a_message(kind: Kind, config: dict[str, Any], colour: str) -> None:
    """A refused sign-in shows the message, stores nothing, and works once it is not refused."""
    refusing = True

    def plain(event: oauthgate.Event) -> None:
        if refusing:
            raise oauthgate.Refused("Staff only, <b>sorry</b>.")

    async def asynchronous(event: oauthgate.Event) -> None:
        plain(event)

    hook = plain if colour == "plain" else asynchronous
    with site_under_test(kind, config, hooks={"login": hook}) as site:
        browser = site.browser()
        started = browser.get("/_oauth/spotify/login", headers=PAGE)
        answer = browser.get(site.authorize(started.headers["location"]), headers=PAGE)
        assert answer.status_code == 403
        assert "Staff only, &lt;b&gt;sorry&lt;/b&gt;." in answer.text
        assert browser.get("/_oauth/session").status_code == 401
        refusing = False
        assert site.login(browser).status_code == 303
        assert browser.get("/_oauth/session").status_code == 200


def test_linked_hook_refuses_and_the_account_stays_free(kind: Kind, config: dict[str, Any]) -> None:
    """An account whose link was refused belongs to nobody: another user can sign in with it."""
    error = oauthgate.Refused("not this one")
    with site_under_test(kind, config, hooks={"linked": Recorder(error)}) as site:
        browser = site.browser()
        site.login(browser, "twitter")
        assert site.link(browser, "spotify").status_code == 403
        assert [link["provider"] for link in browser.get("/_oauth/session").json()["links"]] == [
            "twitter"
        ]
        other = site.browser()
        assert site.login(other, "spotify").status_code == 303
        assert other.get("/who").json()["user_id"] != browser.get("/who").json()["user_id"]


def test_a_failing_hook_is_logged_and_harms_nobody(
    kind: Kind, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception other than `Refused` in any hook changes nothing."""
    recorder = Recorder(ZeroDivisionError("hook"))
    with site_under_test(kind, config, hooks=dict.fromkeys(HOOK_NAMES, recorder)) as site:
        browser = site.browser()
        with caplog.at_level(logging.ERROR, "oauthgate.hooks"):
            assert site.login(browser, "twitter").status_code == 303
            assert site.link(browser, "spotify").status_code == 303
            assert site.post(browser, "/spotify/unlink").status_code == 303
            assert site.post(browser, "/logout").status_code == 200
    assert recorder.names == ["login", "linked", "unlinked", "logout"]
    assert len([record for record in caplog.records if record.name == "oauthgate.hooks"]) == 4


def test_hooks_by_import_path(config: dict[str, Any]) -> None:
    """`[hooks]` names functions by import path; one that is not there is refused at start."""
    config["hooks"] = {"login": "tests.services.test_hooks:Recorder"}
    with site_under_test("wsgi", config) as site:
        assert site.login(site.browser()).status_code == 303
    config["hooks"] = {"login": "tests.services.test_hooks:nothing"}
    with pytest.raises(oauthgate.ConfigError, match=r"\[hooks\] login: found .*nothing"):
        SiteUnderTest("wsgi", config, None)  # type: ignore[arg-type]
