"""Sessions: how they begin, what ends them, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2

from tests.support import PAGE, SiteUnderTest

from .steps import (
    JSON,
    SESSION,
    Clock,
    cookie_header,
    flow_cookies,
    location,
    post_json,
    press,
    set_cookies,
    start,
    who,
)

DAY = 86400.0
UNKNOWN = "A" * 22 + "." + "B" * 43


def test_login_changes_the_session_id(site: SiteUnderTest) -> None:
    """Every sign-in gives a new secret, and the one before is dead at once (row 20, row 51)."""
    browser, old = site.browser(), site.browser()
    seen = set()
    for _ in range(3):
        before = browser.cookies.get(SESSION)
        site.login(browser)
        after = browser.cookies.get(SESSION)
        assert after and after not in seen
        seen.add(after)
        if before:
            assert old.get("/who", headers={"cookie": f"{SESSION}={before}"}).json()["user_id"] is None


def test_a_planted_id_is_never_adopted(site: SiteUnderTest) -> None:
    """An id that an attacker set before the sign-in is neither used nor valid afterwards (row 51)."""
    browser = site.browser()
    browser.cookies.set(SESSION, UNKNOWN, domain="localhost.local", path="/")
    assert who(browser)["user_id"] is None
    site.login(browser)
    assert (
        site.browser().get("/who", headers={"cookie": f"{SESSION}={UNKNOWN}"}).json()["user_id"] is None
    )


def test_login_as_another_user_while_signed_in(site: SiteUnderTest) -> None:
    """Signing in as somebody else links nothing, changes the user and ends the old session (row 20)."""
    browser, bystander = site.browser(), site.browser()
    site.login(browser)
    site.login(bystander)
    first = who(browser)
    old = cookie_header(browser)
    site.login(browser, "twitter", account="grace")
    assert who(browser)["user_id"] != first["user_id"]
    assert who(browser)["links"] == ["twitter:1002"]
    assert site.browser().get("/who", headers=old).json()["user_id"] is None
    assert who(bystander)["links"] == ["spotify:1001"], "the same user's other browser stays signed in"


def test_logout_here(site: SiteUnderTest) -> None:
    """Signing out ends this session at the server and clears its cookie; others go on (row 111)."""
    here, there = site.browser(), site.browser()
    site.login(here)
    site.login(there)
    old = cookie_header(here)
    answer = post_json(site, here, "/logout")
    assert (answer.status_code, answer.json()) == (200, {"logged_out": True, "end_session_url": None})
    assert SESSION not in here.cookies
    assert site.browser().get("/who", headers=old).json()["user_id"] is None
    assert who(there)["user_id"] is not None


def test_logout_everywhere(site: SiteUnderTest) -> None:
    """`everywhere=1` ends every session of the user, and nobody else's (row 111)."""
    browsers = [site.browser() for _ in range(3)]
    other = site.browser()
    for browser in browsers:
        site.login(browser)
    site.login(other, account="grace")
    assert post_json(site, browsers[1], "/logout", everywhere=True).status_code == 200
    assert [who(browser)["user_id"] for browser in browsers] == [None] * 3
    assert who(other)["user_id"] is not None


def test_another_session_is_ended_from_the_account_page(site: SiteUnderTest) -> None:
    """The account page's own button ends the other session, by an id that says nothing of its secret."""
    here, there = site.browser(), site.browser()
    site.login(there)
    site.login(here)
    page = here.get("/_oauth/", headers=PAGE)
    for secret in (here.cookies.get(SESSION), there.cookies.get(SESSION)):
        assert secret and secret not in page.text and secret.partition(".")[2] not in page.text
    (chosen,) = re.findall(r'name="session" value="([^"]+)"', page.text)
    answer = post_json(site, here, "/logout", session=chosen)
    assert (answer.status_code, answer.json()) == (200, {"ended": 1})
    assert who(there)["user_id"] is None
    assert who(here)["user_id"] is not None
    assert post_json(site, here, "/logout", session=chosen).status_code == 404


def test_a_session_of_another_user_is_not_ended(site: SiteUnderTest) -> None:
    """Naming somebody else's session ends nothing."""
    ada, ada_too, grace = site.browser(), site.browser(), site.browser()
    site.login(ada)
    site.login(ada_too)
    site.login(grace, account="grace")
    (chosen,) = re.findall(r'name="session" value="([^"]+)"', ada.get("/_oauth/", headers=PAGE).text)
    assert post_json(site, grace, "/logout", session=chosen).status_code == 404
    assert who(ada_too)["user_id"] is not None


def test_logout_through_the_page(site: SiteUnderTest) -> None:
    """A person signs out with the page's button and sees that it happened; twice is no error."""
    browser, other = site.browser(), site.browser()
    site.login(other)
    site.login(browser)
    page = browser.get("/_oauth/", headers=PAGE)
    answers = [
        browser.post(
            "/_oauth/logout", data={"csrf_token": site.csrf(browser)}, headers={**PAGE, **site.origin()}
        ),
        browser.post("/_oauth/logout", headers={**PAGE, **site.origin()}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert who(browser)["user_id"] is None
    assert page.status_code == 200


def test_logout_at_the_oidc_provider_too(site: SiteUnderTest) -> None:
    """Who signed in by OpenID Connect is sent to its end_session_endpoint and back to the home page."""
    browser = site.browser()
    site.login(browser, "corp")
    answer = post_json(site, browser, "/logout")
    cover = answer.json()["end_session_url"]
    assert cover.startswith(f"{site.base}/_oauth/end-session?to=")
    url = httpx2.URL(location(browser.get(cover, headers=PAGE)))
    assert url.path == "/oauth2/logout"
    assert url.params["post_logout_redirect_uri"] == f"{site.base}/"
    # The ID token is for the provider: a script that signs out sees nothing of it.
    hint = url.params["id_token_hint"]
    assert hint.count(".") == 2 and hint not in answer.text + str(answer.headers)


def test_only_our_own_covered_addresses_lead_anywhere(site: SiteUnderTest, clock: Clock) -> None:
    """The way to the provider is no open redirect: made up, changed or old, it leads nowhere (row 1)."""
    browser = site.browser()
    site.login(browser, "corp")
    cover = post_json(site, browser, "/logout").json()["end_session_url"]
    text = httpx2.URL(cover).params["to"]
    for bad in ("", "https://evil.example/", "x" * 200, text[:-4], text[:-4] + "AAAA", "é", "=" * 3):
        answer = browser.get("/_oauth/end-session", params={"to": bad})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), bad
    assert browser.get(cover, headers=JSON).status_code == 400, "not for a script to fetch"
    assert browser.get(cover).status_code == 303
    site.login(browser, "corp")
    cover = post_json(site, browser, "/logout").json()["end_session_url"]
    clock.advance(301)
    late = browser.get(cover)
    assert (late.status_code, "too old" in late.text) == (400, True)


def test_idle_timeout(site: SiteUnderTest, clock: Clock) -> None:
    """A session that nobody used for 14 days is refused on read, whatever is still stored (row 58)."""
    browser = site.browser()
    site.login(browser)
    cookie = cookie_header(browser)
    clock.advance(13 * DAY, site.gate)
    assert site.browser().get("/who", headers=cookie).json()["user_id"] is not None
    clock.advance(13 * DAY)
    assert site.browser().get("/who", headers=cookie).json()["user_id"] is not None, "used on day 13"
    clock.advance(14 * DAY + 1)
    assert site.browser().get("/who", headers=cookie).json()["user_id"] is None


def test_absolute_timeout(site: SiteUnderTest, clock: Clock) -> None:
    """However much it is used, a session ends after 90 days (row 58)."""
    browser = site.browser()
    site.login(browser)
    cookie = cookie_header(browser)
    days = 0
    while days < 90:
        assert site.browser().get("/who", headers=cookie).json()["user_id"] is not None, days
        clock.advance(9 * DAY, site.gate)
        days += 9
    assert site.browser().get("/who", headers=cookie).json()["user_id"] is None


def test_clock_jumps_end_nothing_early(site: SiteUnderTest, clock: Clock) -> None:
    """A clock that jumps an hour back or forth signs nobody out and refreshes nothing (row 101)."""
    browser = site.browser()
    site.login(browser)
    cookie = cookie_header(browser)
    for jump in (-3600, 3600, 3600, -3600):
        clock.advance(jump, site.gate)
        assert site.browser().get("/who", headers=cookie).json()["user_id"] is not None


def test_at_most_twenty_sessions(site: SiteUnderTest) -> None:
    """The twenty-first sign-in ends the least recently used session; the document stays bounded."""
    browsers = [site.browser() for _ in range(21)]
    for browser in browsers:
        site.login(browser)
    assert who(browsers[0])["user_id"] is None
    assert all(who(browser)["user_id"] for browser in browsers[1:])


def test_the_session_bound_is_configurable(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """`max_sessions = 1` keeps a user to one browser."""
    config["session"] = {"max_sessions": 1}
    site = make_site()
    first, second = site.browser(), site.browser()
    site.login(first)
    site.login(second)
    assert (who(first)["user_id"], who(second)["user_id"] is None) == (None, False)


def test_session_json_has_no_secret(site: SiteUnderTest) -> None:
    """`GET /session` names user and links, no token and no session secret (row 68)."""
    browser = site.browser()
    site.login(browser)
    answer = browser.get("/_oauth/session")
    body = answer.json()
    assert sorted(body) == ["csrf_token", "expires_at", "links", "user_id"]
    assert sorted(body["links"][0]) == ["account_id", "label", "profile", "provider", "scope", "state"]
    secret = (browser.cookies.get(SESSION) or "").partition(".")[2]
    assert secret and secret not in answer.text
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    anonymous = site.browser().get("/_oauth/session")
    assert (anonymous.status_code, anonymous.json()["csrf_token"]) == (401, None)
    assert anonymous.json()["error"] == "login_required"


def test_login_by_post(site: SiteUnderTest) -> None:
    """A sign-in form may post: a person is redirected, a script is told the URL."""
    browser = site.browser()
    person = browser.post(
        "/_oauth/spotify/login", data={"next": "/who"}, headers={**PAGE, **site.origin()}
    )
    back = browser.get(site.authorize(location(person)))
    assert location(back) == f"{site.base}/who"
    script = site.browser()
    answer = script.post(
        "/_oauth/spotify/login", data={"next": "/who"}, headers={**JSON, **site.origin()}
    )
    assert list(answer.json()) == ["authorization_url"]
    assert len(set_cookies(answer)) == 1
    assert script.get(site.authorize(answer.json()["authorization_url"])).status_code == 303
    assert who(script)["links"] == who(browser)["links"]


def test_link_by_script(site: SiteUnderTest) -> None:
    """A JSON client gets `authorization_url` from POST /link, and the flow ends in the session."""
    browser = site.browser()
    site.login(browser, "twitter")
    answer = post_json(site, browser, "/spotify/link", next="/who?x=1")
    assert (answer.status_code, list(answer.json())) == (200, ["authorization_url"])
    back = browser.get(site.authorize(answer.json()["authorization_url"]))
    assert location(back) == f"{site.base}/who?x=1"
    assert who(browser)["services"] == ["spotify", "twitter"]


def test_link_and_unlink_through_the_pages(site: SiteUnderTest) -> None:
    """A person links on the link page and unlinks on the account page, without any script."""
    browser = site.browser()
    site.login(browser, "twitter")
    page = browser.get("/_oauth/spotify/link", params={"next": "/who?a=1&b=%2F"}, headers=PAGE)
    assert not flow_cookies(browser), "the page itself starts nothing (row 17)"
    back = browser.get(site.authorize(location(press(site, browser, page, "/spotify/link"))))
    assert location(back) == f"{site.base}/who?a=1&b=%2F"
    account = browser.get("/_oauth/", headers=PAGE)
    done = press(site, browser, account, "/spotify/unlink")
    notice = browser.get(location(done), headers=PAGE)
    assert 'role="status"' in notice.text
    assert who(browser)["services"] == ["twitter"]


def test_allowed_origins_may_use_the_json_routes(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """A front end of a listed origin reads the session and changes things, with its token."""
    front = "https://front.example"
    config["oauthgate"]["allowed_origins"] = [front]
    site = make_site()
    browser = site.browser()
    site.login(browser, "twitter")
    headers = {**JSON, "origin": front, "sec-fetch-site": "cross-site"}
    answer = browser.get("/_oauth/session", headers=headers)
    assert answer.headers["access-control-allow-origin"] == front
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()
    body = {"csrf_token": answer.json()["csrf_token"]}
    linked = browser.post("/_oauth/spotify/link", json=body, headers=headers)
    assert "authorization_url" in linked.json()
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-csrf-token"}
    preflight = browser.options("/_oauth/logout", headers={"origin": front, **asked})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "x-csrf-token" in preflight.headers["access-control-allow-headers"].lower()
    assert who(browser)["user_id"] is not None, "a preflight changes nothing"
    assert browser.post("/_oauth/logout", json=body, headers=headers).status_code == 200
    assert who(browser)["user_id"] is None


def test_a_login_from_a_bad_next_still_works(site: SiteUnderTest) -> None:
    """A return target that is refused costs the visitor the target, not the sign-in."""
    browser = site.browser()
    back = browser.get(site.authorize(start(site, browser, next="https://evil.example/")))
    assert location(back) == f"{site.base}/"
