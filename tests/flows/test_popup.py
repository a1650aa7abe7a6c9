"""A sign-in in a popup: where it ends, whom its page may tell, and what that page may run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.testing import LocalProvider
from tests.support import PAGE, SiteUnderTest

from .steps import flow_cookies, location, post_json, start, who

ATTEMPT = "0b2c3d4e-0000-4000-8000-000000000000"
FRONT = "https://front.example"


@pytest.fixture
def site(make_site: Callable[[], SiteUnderTest], config: dict[str, Any]) -> SiteUnderTest:
    config["oauthgate"]["allowed_origins"] = [FRONT]
    return make_site()


def told(answer: httpx2.Response) -> dict[str, str]:
    """What the popup's page hands to its script, which is the only one there."""
    assert answer.status_code == 200
    (script,) = re.findall(r"<script ([^>]*)></script>", answer.text)
    assert answer.text.count("<script") == 1
    return dict(re.findall(r'([\w-]+)="([^"]*)"', script))


@pytest.mark.parametrize("opener", ["", "http://localhost", FRONT])
@pytest.mark.parametrize("provider_name", ["twitter", "spotify", "corp"])
def test_sign_in(site: SiteUnderTest, opener: str, provider_name: str) -> None:
    """It ends on the gate's page, which tells the one opener that was asked for that it is done."""
    browser = site.browser()
    asked = {"popup": ATTEMPT, **({"opener": opener} if opener else {})}
    back = browser.get(site.authorize(start(site, browser, provider_name, **asked)), headers=PAGE)
    target = location(back)
    assert target.startswith(f"{site.base}/_oauth/popup?")
    page = browser.get(target, headers=PAGE)
    found = told(page)
    assert found["data-attempt"] == ATTEMPT
    assert found["data-opener"] == (opener or site.base)
    assert (found["data-result"], found["data-channel"]) == ("done", "oauthgate:/_oauth")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    script = browser.get(found["src"])
    assert script.headers["content-type"].startswith("text/javascript")
    assert who(browser)["user_id"] is not None


def test_link(site: SiteUnderTest) -> None:
    """Linking ends there too."""
    browser = site.browser()
    site.login(browser)
    answer = post_json(site, browser, "/twitter/link", popup=ATTEMPT, opener=FRONT, next="/who")
    back = browser.get(site.authorize(answer.json()["authorization_url"]), headers=PAGE)
    assert told(browser.get(location(back), headers=PAGE))["data-opener"] == FRONT
    assert who(browser)["services"] == ["spotify", "twitter"]


def test_refusal(site: SiteUnderTest) -> None:
    """An error ends there as well, as its code; nobody is signed in, and the flow is over."""
    browser = site.browser()
    url = site.authorize(start(site, browser, popup=ATTEMPT), deny=True)
    back = browser.get(url, headers=PAGE)
    assert told(browser.get(location(back), headers=PAGE))["data-result"] == "access_denied"
    assert who(browser)["user_id"] is None and not flow_cookies(browser)


def test_error_codes_are_the_gates_own(site: SiteUnderTest) -> None:
    """What is told is one of the documented codes, whatever the address says."""
    query = {"popup": ATTEMPT, "error": '"><script>alert(1)</script>'}
    page = site.browser().get("/_oauth/popup", params=query, headers=PAGE)
    assert told(page)["data-result"] == "provider_error"


STRANGERS = [
    "https://evil.example",
    "https://front.example.evil.example",
    "https://evilfront.example",
    "https://front.example:444",
    "https://front.example/",
    "https://FRONT.example",
    "http://front.example",
    "null",
    "*",
    "http://localhost:81",
    "http://localhost.evil.example",
    "http://127.0.0.1",
]


@pytest.mark.parametrize("opener", STRANGERS)
def test_strangers_are_not_told(site: SiteUnderTest, provider: LocalProvider, opener: str) -> None:
    """For an opener that is not this site or an allowed origin to the letter nothing begins (row 67)."""
    browser = site.browser()
    before = sum(provider.count.values())
    asked = {"popup": ATTEMPT, "opener": opener}
    for path in ("/_oauth/spotify/login", "/_oauth/popup"):
        answer = browser.get(path, params=asked)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert opener not in answer.text or opener == "*"
    site.login(browser)
    before = sum(provider.count.values())
    assert post_json(site, browser, "/twitter/link", **asked).status_code == 400
    assert sum(provider.count.values()) == before and not flow_cookies(browser)


@pytest.mark.parametrize("attempt", ["", "short", "a" * 65, "a" * 16 + '"', "a" * 16 + "\n", "é" * 16])
def test_attempts_are_plain(site: SiteUnderTest, attempt: str) -> None:
    """An attempt's name is letters and digits, and long enough not to be guessed."""
    for path in ("/_oauth/spotify/login", "/_oauth/popup"):
        answer = site.browser().get(path, params={"popup": attempt})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_next_leads_there_by_no_other_way(site: SiteUnderTest) -> None:
    """As a return target of a request's own the page stays refused (row 5)."""
    browser = site.browser()
    target = f"/_oauth/popup?popup={ATTEMPT}"
    back = browser.get(site.authorize(start(site, browser, next=target)))
    assert location(back) == f"{site.base}/"


def test_chain(site: SiteUnderTest) -> None:
    """A chain of providers ends in the popup's page, once, after the last one."""
    browser = site.browser()
    first = browser.get(site.authorize(start(site, browser, "twitter", popup=ATTEMPT, then="spotify")))
    back = browser.get(site.authorize(location(first)), headers=PAGE)
    assert told(browser.get(location(back), headers=PAGE))["data-result"] == "done"
    assert who(browser)["services"] == ["spotify", "twitter"]


@pytest.mark.parametrize("name", ["oauthgate.js", "oauthgate.d.ts", "popup.js"])
def test_scripts_are_cached_by_content(site: SiteUnderTest, name: str) -> None:
    """The plain address is asked for again and not sent again; one with the hash is kept for ever."""
    browser = site.browser()
    first = browser.get(f"/_oauth/{name}")
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    assert first.headers["x-content-type-options"] == "nosniff"
    tag = first.headers["etag"]
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = browser.get(f"/_oauth/{name}", headers={"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert browser.get(f"/_oauth/{name}", headers={"if-none-match": '"other"'}).status_code == 200
    kept = browser.get(f"/_oauth/{name}?v={tag.strip(chr(34))}")
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert browser.get(f"/_oauth/{name}?v=other").headers["cache-control"] == "no-cache"
    assert browser.head(f"/_oauth/{name}").content == b""
    assert "set-cookie" not in first.headers
    assert "origin" in first.headers["vary"].lower(), "origins are configured"


def test_the_module_knows_its_gate(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """A gate at another prefix serves a module that knows it."""
    config["oauthgate"]["prefix"] = "/auth/v1"
    browser = make_site().browser()
    assert 'const PREFIX = "/auth/v1";' in browser.get("/auth/v1/oauthgate.js").text
