"""The steps that the tests of all real servers share."""

from __future__ import annotations

from typing import Any

import httpx2

import oauthgate
from oauthgate.records import Token
from oauthgate.stepping import run
from tests.support import PAGE, SiteUnderTest


def start(site: SiteUnderTest, browser: httpx2.Client, provider: str) -> str:
    """Start a sign-in; the authorization URL."""
    answer = browser.get(f"/_oauth/{provider}/login", params={"next": "/who"}, headers=PAGE)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def start_link(site: SiteUnderTest, browser: httpx2.Client, provider: str) -> str:
    """Start linking to the signed-in user; the authorization URL."""
    answer = site.post(browser, f"/{provider}/link", next="/who")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def signed_in(site: SiteUnderTest, answer: httpx2.Response) -> None:
    """The callback was believed."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"{site.base}/who"


def refused(browser: httpx2.Client, answer: httpx2.Response, status: int, code: str) -> None:
    """The callback was answered with this error, in JSON, and nobody is signed in."""
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert browser.get("/who").json()["user_id"] is None


def profile(browser: httpx2.Client) -> dict[str, Any]:
    found: dict[str, Any] = browser.get("/who").json()["profile"]
    return found


def token(site: SiteUnderTest, provider: str) -> Token:
    """The stored token of the only user's only link to this provider."""
    with oauthgate.open(site.config) as gate:
        (user_id,) = (user.user_id for user in gate.users())
    # A read of SQLite suspends under neither adapter, so that it can be stepped from here.
    found = run(site.gate.vault.user(user_id))
    assert found is not None
    (link,) = found[0].links_of(provider)
    return link.token
