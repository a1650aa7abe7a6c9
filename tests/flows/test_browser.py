"""Tabs, the back button, reloads, double clicks and refusals: what real browsers do to a flow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oauthgate.testing import LocalProvider
from tests.support import PAGE, SiteUnderTest

from .steps import SESSION, Clock, cookie_header, flow_cookies, location, set_cookies, start, who

TOKEN_ENDPOINT = {"twitter": "access_token", "spotify": "token", "corp": "token"}
ALL = list(TOKEN_ENDPOINT)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in_order", "reversed"])
def test_two_tabs_sign_in(site: SiteUnderTest, order: tuple[int, int]) -> None:
    """Two sign-ins of one browser both finish, in either order, each at its own page (row 110)."""
    browser = site.browser()
    tabs = [
        start(site, browser, "spotify", next="/who?tab=0"),
        start(site, browser, "twitter", next="/who?tab=1"),
    ]
    assert len(flow_cookies(browser)) == 2
    callbacks = [site.authorize(url) for url in tabs]
    for tab in order:
        assert location(browser.get(callbacks[tab])) == f"{site.base}/who?tab={tab}"
        assert who(browser)["user_id"] is not None
    assert not flow_cookies(browser)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in_order", "reversed"])
def test_two_tabs_link(site: SiteUnderTest, order: tuple[int, int]) -> None:
    """Two link flows of one session both finish, in either order (row 110)."""
    browser = site.browser()
    site.login(browser, "twitter")
    tabs = [location(site.post(browser, f"/{name}/link", next="/who")) for name in ("spotify", "corp")]
    callbacks = [site.authorize(url) for url in tabs]
    for tab in order:
        assert browser.get(callbacks[tab]).status_code == 303
    assert who(browser)["services"] == ["corp", "spotify", "twitter"]


def test_two_tabs_link_at_the_same_moment(site: SiteUnderTest) -> None:
    """Two links that end at once lose neither: both are in the one document (compare-and-swap)."""
    browser = site.browser()
    site.login(browser, "twitter")
    urls = [location(site.post(browser, f"/{name}/link", next="/who")) for name in ("spotify", "corp")]
    callbacks = [site.authorize(url) for url in urls]
    cookies = cookie_header(browser)
    clients = [site.browser(), site.browser()]
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(
                lambda pair: pair[0].get(pair[1], headers=cookies), zip(clients, callbacks, strict=True)
            )
        )
    assert [answer.status_code for answer in answers] == [303, 303]
    assert who(browser)["services"] == ["corp", "spotify", "twitter"]


@pytest.mark.parametrize("name", ALL)
def test_reload_and_back_button(site: SiteUnderTest, provider: LocalProvider, name: str) -> None:
    """A reloaded callback redeems nothing again and leads on; without a session it is a 400 (row 12)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, name, next="/who?x=1"))
    before = cookie_header(browser)
    assert browser.get(url).status_code == 303
    session = browser.cookies.get(SESSION)
    endpoint = TOKEN_ENDPOINT[name]
    for _ in range(2):
        again = browser.get(url, headers=PAGE)
        assert location(again) == f"{site.base}/who?x=1"
        assert not set_cookies(again)
    # The browser's copy of the old cookies, replayed by somebody without the session.
    stolen = site.browser().get(url, headers={**PAGE, **before})
    assert stolen.status_code == 400
    assert not [value for value in set_cookies(stolen) if value.startswith(SESSION + "=")]
    # No cookie at all: another browser with the URL out of the history.
    assert site.browser().get(url, headers=PAGE).status_code == 400
    # Signed in as somebody else: no way on, and the session stays.
    other = site.browser()
    site.login(other, "spotify", account="grace")
    assert other.get(url, headers=PAGE).status_code == 400
    assert who(other)["links"] == ["spotify:1002"]
    assert provider.count[endpoint] == (2 if endpoint == "token" else 1), "one each for ada and grace"
    assert browser.cookies.get(SESSION) == session
    assert who(browser)["user_id"] is not None


@pytest.mark.parametrize("name", ALL)
def test_the_same_callback_twice_at_once(
    site: SiteUnderTest, provider: LocalProvider, name: str
) -> None:
    """A callback delivered four times at once: one token request, every answer leads to a session
    (row 110)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, name))
    cookies = cookie_header(browser)
    provider.faults.set(TOKEN_ENDPOINT[name], delay=0.4)
    clients = [site.browser() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda client: client.get(url, headers={**PAGE, **cookies}), clients))
    assert provider.count[TOKEN_ENDPOINT[name]] == 1
    users = set()
    for client, answer in zip(clients, answers, strict=True):
        assert location(answer) == f"{site.base}/who"
        users.add(who(client)["user_id"])
    assert len(users) == 1 and None not in users


def test_the_same_link_callback_twice_at_once(site: SiteUnderTest, provider: LocalProvider) -> None:
    """The same for a link: one token request, one link, the session goes on (row 110)."""
    browser = site.browser()
    site.login(browser, "twitter")
    url = site.authorize(location(site.post(browser, "/spotify/link", next="/who")))
    cookies = cookie_header(browser)
    provider.faults.set("token", delay=0.4)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(site.browser().get, url, headers={**PAGE, **cookies}) for _ in range(3)]
        answers = [call.result() for call in calls]
    assert [location(answer) for answer in answers] == [f"{site.base}/who"] * 3
    assert provider.count["token"] == 1
    assert who(browser)["links"] == ["twitter:1001", "spotify:1001"]


def test_a_failed_callback_delivered_twice_fails_twice(
    site: SiteUnderTest, provider: LocalProvider
) -> None:
    """When the first delivery fails, the second one says so soon and sends no code again (row 91)."""
    browser = site.browser()
    url = site.authorize(start(site, browser))
    cookies = cookie_header(browser)
    provider.faults.set("token", status=500, delay=0.3)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(site.browser().get, url, headers={**PAGE, **cookies}) for _ in range(2)]
        answers = [call.result(timeout=10) for call in calls]
    assert sorted(answer.status_code for answer in answers) in ([400, 502], [400, 503])
    assert site.browser().get(url, headers={**PAGE, **cookies}).status_code == 400
    assert provider.count["token"] == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("purpose", ["login", "link"])
def test_the_visitor_says_no(
    site: SiteUnderTest, provider: LocalProvider, name: str, purpose: str
) -> None:
    """A denial is a page that offers another try; the flow is over, the session stays (row 15)."""
    browser = site.browser()
    if purpose == "link":
        site.login(browser, "spotify" if name != "spotify" else "twitter")
        url = location(site.post(browser, f"/{name}/link", next="/who"))
    else:
        url = start(site, browser, name)
    before = who(browser)
    provider.count.clear()
    answer = browser.get(site.authorize(url, deny=True), headers=PAGE)
    assert answer.status_code == 400
    assert f"{site.base}/_oauth/{name}/" in answer.text, "the way to try again"
    assert provider.count[TOKEN_ENDPOINT[name]] == 0
    assert not flow_cookies(browser)
    assert who(browser)["links"] == before["links"]
    again = (
        start(site, browser, name)
        if purpose == "login"
        else location(site.post(browser, f"/{name}/link", next="/who"))
    )
    assert browser.get(site.authorize(again)).status_code == 303


@pytest.mark.parametrize(
    "error", ["server_error", "temporarily_unavailable", "<b>x</b>", "a\r\nb", "é" * 500]
)
@pytest.mark.parametrize("with_code", [False, True])
def test_an_error_at_the_callback(
    site: SiteUnderTest, provider: LocalProvider, error: str, with_code: bool
) -> None:
    """An error ends the flow; a code beside it is not redeemed and nothing of it is shown (row 15)."""

    def tamper(answer: dict[str, Any]) -> dict[str, Any]:
        extra = {
            "error": error,
            "error_description": "<script>x</script>",
            "error_uri": "https://evil.example/",
        }
        return {**(answer if with_code else {"state": answer["state"], "iss": answer["iss"]}), **extra}

    provider.faults.tamper_authorization_response = tamper
    browser = site.browser()
    answer = browser.get(site.authorize(start(site, browser)), headers=PAGE)
    assert answer.status_code == 400
    assert (
        "evil.example" not in answer.text and "<script>" not in answer.text and error not in answer.text
    )
    assert provider.count["token"] == 0
    assert not flow_cookies(browser)
    assert who(browser)["user_id"] is None


@pytest.mark.parametrize("name", ALL)
def test_an_expired_flow(site: SiteUnderTest, provider: LocalProvider, clock: Clock, name: str) -> None:
    """A flow older than its 20 minutes is refused at use, though the browser still sends it (row 9)."""
    provider.timestamp_window = 7200  # the gate's clock is moved, the provider's is not
    browser = site.browser()
    url = site.authorize(start(site, browser, name))
    cookies = cookie_header(browser)
    clock.advance(20 * 60 + 1, site.gate)
    answer = site.browser().get(url, headers={**cookies, "accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "flow_expired")
    assert provider.count[TOKEN_ENDPOINT[name]] == 0
    clock.advance(-10)
    assert site.browser().get(url, headers=cookies).status_code == 303


def test_at_most_five_flows(site: SiteUnderTest) -> None:
    """Fifty pending flows leave five cookies, the newest, all together small (row 56, row 109)."""
    browser = site.browser()
    urls = [start(site, browser, ALL[number % 3]) for number in range(50)]
    held = flow_cookies(browser)
    assert len(held) == 5
    assert sum(len(name) + len(value) for name, value in held.items()) <= 6 * 1024
    assert browser.get(site.authorize(urls[0]), headers=PAGE).status_code == 400
    for url in urls[-5:]:
        assert browser.get(site.authorize(url)).status_code == 303


def test_blocked_cookies_are_told(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Without cookies the callback is a clear 400, not a loop (row 110)."""
    url = site.authorize(start(site, site.browser()))
    answer = site.browser().get(url, headers=PAGE)
    assert answer.status_code == 400
    assert "cookie" in answer.text.lower()
    assert provider.count["token"] == 0


@pytest.mark.parametrize("name", ["spotify", "twitter", "corp"])
def test_who_said_no_is_led_back_to_the_page_they_came_from(site: SiteUnderTest, name: str) -> None:
    """The error page says what happened, and both of its ways end on the page of the application."""
    browser = site.browser()
    started = browser.get(f"/_oauth/{name}/login", params={"next": "/who?a=1&b=2"}, headers=PAGE)
    answer = browser.get(site.authorize(started.headers["location"], deny=True), headers=PAGE)
    assert answer.status_code == 400
    assert 'href="http://localhost/who?a=1&amp;b=2"' in answer.text
    again = f"http://localhost/_oauth/{name}/link?next=%2Fwho%3Fa%3D1%26b%3D2"
    assert f'href="{again}"' in answer.text
    page = browser.get(again, headers=PAGE).text
    assert f"/_oauth/{name}/login?next=%2Fwho%3Fa%3D1%26b%3D2" in page
