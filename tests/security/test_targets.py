"""Where a flow may lead: rows 1 to 8 of the threat list, with generated targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from oauthgate.flows import Flow, FlowCookies
from oauthgate.targets import return_target
from oauthgate.testing import LocalProvider
from tests.flows.steps import cookie_header, location, post_json, start, who
from tests.support import PAGE, SiteUnderTest

from .payloads import GOOD, HOST, origin_in_a_browser, targets
from .raw import Raw, RawAnswer

PREFIX = "/_oauth"


def plain(url: str, site: SiteUnderTest) -> bool:
    """Whether an emitted URL is in the site, in a spelling that nothing can read otherwise (row 3)."""
    if origin_in_a_browser(url, site.base) != site.base or not url.startswith(f"{site.base}/"):
        return False
    path = urlsplit(url).path
    for spelt in (path, unquote(path)):
        if "//" in spelt or "\\" in spelt or any(part in (".", "..") for part in spelt.split("/")):
            return False
    return url.isascii() and url.isprintable() and " " not in url


def started(site: SiteUnderTest, answer: RawAnswer) -> Flow:
    """The flow that an answer began, opened with the gate's own keys."""
    name, _, value = answer.values("set-cookie")[0].partition(";")[0].partition("=")
    prefix = name.rpartition("flow-")[0] + "flow-"
    cookies = FlowCookies(site.gate.keys, prefix, secure=False)
    state = dict(pair.split("=", 1) for pair in urlsplit(answer.location).query.split("&"))["state"]
    flow = cookies.find(state, [f"{name}={value}"], 0)
    assert flow is not None
    return flow


def test_the_browser_model_knows_its_tricks() -> None:
    """What these tests take for a browser's reading is one: the classic bypasses lead away."""
    base = "http://localhost"
    for away in (
        "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "https:evil.example",
        "\x01javascript:alert(1)", "http://localhost@evil.example", "http:\\\\evil.example",
        "data:text/html,x", "http://localhost:81/", "https://localhost/",
    ):  # fmt: skip
        assert origin_in_a_browser(away, base) != base, away
    for home in (
        "/",
        "/a//b",
        "a",
        "?x",
        "http://localhost/x",
        "http://localhost:80/",
        "http:/x",
        "./https:x",
    ):
        assert origin_in_a_browser(home, base) == base, home


def test_no_generated_target_is_accepted_unless_plain() -> None:
    """Thousands of targets: each is refused, or is a plain path of the site (rows 1, 2, 3, 5)."""
    found = targets()
    assert len(found) > 3000
    for target in found:
        accepted = return_target(target, PREFIX)
        assert accepted in (None, target)
        if accepted is not None:
            path = unquote(accepted.partition("?")[0])
            assert HOST not in path.split("/")[1:2] or not path.startswith("//")
            assert accepted.startswith("/") and "//" not in path and "\\" not in path


@pytest.mark.parametrize("target", GOOD)
def test_good_targets_survive(target: str) -> None:
    """What is a plain path and query of the site stays as it is."""
    assert return_target(target, PREFIX) == target


def test_login_keeps_no_hostile_target(site: SiteUnderTest, raw: Raw) -> None:
    """1,500 hostile targets at the login route: never an error, never another target than a plain one
    (rows 1, 2, 4, 5)."""
    for target in targets(1500):
        query = quote(target, safe="", errors="surrogatepass").encode()
        answer = raw(b"/_oauth/spotify/login?next=" + query)
        answer.check()
        if answer.status == 400:
            continue
        flow = started(site, answer)
        assert plain(site.base + flow.target, site), (target, flow.target)
        assert not flow.target.lower().startswith("/_oauth/") or flow.target == "/_oauth/"


def test_whole_flows_end_in_the_site(site: SiteUnderTest) -> None:
    """Sixty hostile targets through the whole flow: each ends in the site, at status 303 (row 1)."""
    browser = site.browser()
    for target in targets(60 + 40)[-60:]:
        begun = browser.get("/_oauth/spotify/login", params={"next": target.encode("utf-8", "replace")})
        if begun.status_code == 400:
            continue
        back = browser.get(site.authorize(location(begun)))
        assert plain(location(back), site), target


@pytest.mark.parametrize("route", ["logout", "spotify/unlink", "spotify/link", "session/refresh"])
def test_other_routes_follow_no_target(site: SiteUnderTest, route: str) -> None:
    """Redirect parameters of any name lead nowhere on any other route (row 7)."""
    browser = site.browser()
    site.login(browser)
    hostile = dict.fromkeys(
        [
            "next",
            "return_to",
            "redirect",
            "redirect_uri",
            "post_logout_redirect_uri",
            "rd",
            "url",
            "target_link_uri",
        ],
        f"https://{HOST}/",
    )
    data = {**hostile, "csrf_token": site.csrf(browser)}
    answer = browser.post(
        f"/_oauth/{route}", params=hostile, data=data, headers={**PAGE, **site.origin()}
    )
    assert HOST not in answer.headers.get("location", "")
    if route == "spotify/link":
        back = browser.get(site.authorize(location(answer)))
        assert location(back) == f"{site.base}/"


def test_the_callback_ignores_redirect_parameters(site: SiteUnderTest) -> None:
    """What is added to the callback's own query changes no target (row 7)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, next="/who?mine=1"))
    hostile = f"&next=https://{HOST}/&redirect_uri=https://{HOST}/&error_uri=https://{HOST}/"
    assert location(browser.get(url + hostile)) == f"{site.base}/who?mine=1"


def test_nothing_of_the_answer_is_in_the_next_address(site: SiteUnderTest) -> None:
    """The way on after a callback holds no code, state or token, and no fragment (row 8)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, "corp"))
    values = [value for _, _, value in (pair.partition("=") for pair in urlsplit(url).query.split("&"))]
    answer = browser.get(url)
    assert location(answer) == f"{site.base}/who"
    assert not any(value in answer.headers["location"] for value in values)
    assert answer.content == b""


@pytest.mark.parametrize(
    "target",
    ["/_oauth/logout", "/_oauth/spotify/login", "/_oauth/spotify/callback?state=x", "/%5Foauth/logout"],
)
def test_a_target_among_our_own_routes(site: SiteUnderTest, target: str) -> None:
    """A return to one of the gate's action routes becomes the default target: no loop, no logout (row
    5)."""
    browser = site.browser()
    assert location(browser.get(site.authorize(start(site, browser, next=target)))) == f"{site.base}/"
    assert who(browser)["user_id"] is not None


ORIGINS = ["https://app.test.evil", "https://evilapp.test", "https://app.test:444", "http://app.test"]
ORIGINS += [
    "null",
    "https://APP.test",
    "https://app.test/",
    "https://app.test.",
    "https://app.test, https://evil.test",
]
ORIGINS += [
    "https://app.test@evil.test",
    "https://app.test https://app.test",
    "",
    "*",
    "https://app.test\\.evil.test",
]


def test_allowed_origins_match_exactly(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """Only the very origin of the list is one: no prefix, suffix, port or case of it (rows 6, 67)."""
    config["oauthgate"]["allowed_origins"] = ["https://app.test"]
    site = make_site()
    browser = site.browser()
    site.login(browser)
    for sent in ORIGINS:
        answer = browser.get("/_oauth/session", headers={"origin": sent})
        assert "access-control-allow-origin" not in answer.headers, sent
        body = {"csrf_token": answer.json()["csrf_token"]}
        refused = browser.post("/_oauth/logout", json=body, headers={"origin": sent})
        assert (refused.status_code, refused.json()["error"]) == (403, "csrf_failed"), sent
    assert who(browser)["user_id"] is not None


def test_a_repeated_target_is_refused(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Two targets: neither is chosen, nothing is started (row 13)."""
    answer = site.browser().get("/_oauth/spotify/login?next=/a&next=/b")
    assert answer.status_code == 400 and "set-cookie" not in answer.headers
    browser = site.browser()
    site.login(browser)
    assert cookie_header(browser)
    assert post_json(site, browser, "/spotify/link", next="//evil.example").status_code == 200
