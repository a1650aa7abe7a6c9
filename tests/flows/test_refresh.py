"""Refresh inside a process: one request for many callers, and what is kept when it goes wrong.

Rows 94 to 100 of the threat list; several processes are in tests/refresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx2
import pytest

from oauthgate import refresh
from oauthgate.testing import LocalProvider
from tests.security.raw import asgi_scope
from tests.support import PAGE, SiteUnderTest

from .steps import Clock, cookie_header, location, post_json, start, who

CALLERS = 20


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does; fails after 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def at_once(
    site: SiteUnderTest, browser: httpx2.Client, path: str = "/call/spotify/me"
) -> list[httpx2.Response]:
    """The same page asked for by 20 requests of one visitor at once: threads under WSGI, tasks on one
    loop under ASGI."""
    cookies = cookie_header(browser)
    clients = [site.browser() for _ in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda client: client.get(path, headers=cookies), clients))


@pytest.fixture
def browser(site: SiteUnderTest, provider: LocalProvider) -> httpx2.Client:
    """Signed in with spotify and twitter; token requests are counted from here on."""
    found = site.browser()
    site.login(found)
    site.link(found, "twitter")
    provider.count.clear()
    return found


@pytest.mark.parametrize("name", ["call", "sync"])
def test_twenty_callers_one_refresh(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock, name: str
) -> None:
    """20 callers with one expired, rotating token: one token request, 20 successes (row 94)."""
    provider.faults.set("token", delay=0.2)
    clock.advance(3601)
    answers = at_once(site, browser, f"/{name}/spotify/me")
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    assert provider.count["token"] == 1
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 1, "the new pair was stored (row 95)"


def test_twenty_callers_after_a_401(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider
) -> None:
    """A token that the API refuses before its time is refreshed once, and every call is made again."""
    provider.expire_access_tokens()
    provider.faults.set("token", delay=0.2)
    answers = at_once(site, browser)
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    assert provider.count["token"] == 1


def test_a_401_is_retried_once(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider
) -> None:
    """An API that refuses every token gets one more call and one refresh, not a loop (row 96)."""
    provider.faults.set("me", status=401)
    assert browser.get("/call/spotify/me").status_code == 401
    assert (provider.count["me"], provider.count["token"]) == (2, 1)


def test_a_posted_body_is_sent_again(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider
) -> None:
    """The call made again after a refresh has the same body."""
    provider.expire_access_tokens()
    answer = browser.post("/call/spotify/tweets", json={"text": "hello"})
    assert (answer.status_code, answer.json()["text"]) == (201, "hello")
    assert [message.body for message in provider.received("tweets")] == [b'{"text":"hello"}'] * 2


def test_an_ended_grant(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """`invalid_grant` is asked for once, marks the link, and leaves session and other links alone
    (row 96)."""
    provider.revoke_all()
    provider.faults.set("token", delay=0.1)
    clock.advance(3601)
    answers = at_once(site, browser)
    assert [answer.status_code for answer in answers] == [401] * CALLERS
    assert {answer.json()["reason"] for answer in answers} == {"reauth_required"}
    assert provider.count["token"] == 1
    seen = who(browser)
    assert (seen["services"], seen["links"]) == (["twitter"], ["spotify:1001", "twitter:1001"])
    states = {link["provider"]: link["state"] for link in browser.get("/_oauth/session").json()["links"]}
    assert states == {"spotify": "reauth_required", "twitter": "active"}
    for _ in range(3):
        assert browser.get("/call/spotify/me").status_code == 401
    assert provider.count["token"] == 1, "a dead grant is not asked for again"
    clock.advance(-3601)
    assert site.link(browser, "spotify").status_code == 303
    assert browser.get("/call/spotify/me").status_code == 200


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429}, {"body": "<html>", "status": 200}, {"body": "", "status": 200}],
)
def test_a_refresh_that_fails(
    site: SiteUnderTest,
    browser: httpx2.Client,
    provider: LocalProvider,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
) -> None:
    """The old token is used while it is good; afterwards a typed error; nothing is deleted, and it
    recovers by itself (row 97)."""
    provider.faults.set("token", **fault)
    clock.advance(3600 - 30)
    for _ in range(3):
        assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 1, "backing off"
    clock.advance(60)
    failed = browser.get("/call/spotify/me", headers={"accept": "application/json"})
    assert (failed.status_code, failed.json()["error"]) == (503, "provider_unavailable")
    assert failed.headers["retry-after"]
    page = browser.get("/call/spotify/me", headers=PAGE)
    assert page.status_code == 503 and "text/html" in page.headers["content-type"]
    assert provider.count["token"] == 1
    assert who(browser)["services"] == ["spotify", "twitter"]
    provider.faults.clear()
    monkeypatch.setattr(refresh, "BACK_OFF", 0.0)
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 2


@pytest.mark.parametrize("reply", [None, "", 7])
def test_an_answer_without_a_refresh_token(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock, reply: object
) -> None:
    """When the answer gives no new refresh token, the old one is kept and works again (row 95)."""
    provider.rotate_refresh_tokens = False

    def tamper(answer: dict[str, Any]) -> dict[str, Any]:
        answer.pop("refresh_token", None)
        return answer if reply is None else {**answer, "refresh_token": reply}

    provider.faults.tamper_token_response = tamper
    for round_ in (1, 2, 3):
        clock.advance(3601)
        assert browser.get("/call/spotify/me").status_code == 200
        assert provider.count["token"] == round_
    sent = {message.params["refresh_token"] for message in provider.received("token")[1:]}
    assert len(sent) == 1


@pytest.mark.parametrize(
    "claims", [{"sub": "1002"}, {"iss": "https://evil.example"}, {"aud": "other"}, {"exp": 1}]
)
def test_a_refreshed_id_token_of_somebody_else(
    site: SiteUnderTest, provider: LocalProvider, clock: Clock, claims: dict[str, Any]
) -> None:
    """An ID token of another account in the refresh answer ends the link, the token is not used
    (row 98)."""
    browser = site.browser()
    site.login(browser, "corp")
    provider.faults.tamper_id_token = lambda found, header: {**found, **claims}
    clock.advance(3590)
    provider.count.clear()
    answer = browser.get("/call/corp/me")
    assert (answer.status_code, answer.json()["reason"]) == (401, "reauth_required")
    assert provider.count["me"] == 0
    assert who(browser)["user_id"] is not None


def test_unlinking_beats_a_refresh(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """A link that is removed while its token is refreshed stays removed (row 99)."""
    clock.advance(3601)
    provider.faults.set("token", delay=0.5)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(browser.get, "/call/spotify/me")
        until(lambda: provider.count["token"] == 1)
        other = site.browser()
        other.cookies.update(browser.cookies)
        assert post_json(site, other, "/spotify/unlink").json()["unlinked"] is True
        late = call.result(timeout=10)
    assert (late.status_code, late.json()["error"]) == (401, "link_required")
    assert late.json()["reason"] != "reauth_required"
    assert who(other)["links"] == ["twitter:1001"]


def test_linking_again_beats_a_refresh(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """A refresh that ends after the account was linked anew does not overwrite the newer token (row
    99)."""
    other = site.browser()
    other.cookies.update(browser.cookies)
    url = site.authorize(location(site.post(other, "/spotify/link", next="/who")))
    clock.advance(3601)
    provider.timestamp_window = 7200
    clock.advance(-3000)
    provider.expire_access_tokens()
    provider.faults.set("token", delay=0.6, times=1)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(browser.get, "/call/spotify/me")
        until(lambda: provider.count["token"] == 1)
        assert other.get(url).status_code == 303
        assert call.result(timeout=10).status_code == 200
    stored = provider.received("token")[-1]
    assert stored.params["grant_type"] in ("authorization_code", "refresh_token")
    provider.count.clear()
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 0


def test_signing_out_during_a_refresh(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """A logout while a refresh runs ends the session; the late write does not bring it back, and the
    rotated token is kept for the next sign-in (row 99)."""
    clock.advance(3601)
    provider.faults.set("token", delay=0.5)
    old = cookie_header(browser)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.browser().get, "/call/spotify/me", headers=old)
        until(lambda: provider.count["token"] == 1)
        assert post_json(site, browser, "/logout").status_code == 200
        assert call.result(timeout=10).status_code == 200
    assert site.browser().get("/who", headers=old).json()["user_id"] is None
    again = site.browser()
    provider.timestamp_window = 7200
    site.login(again, "twitter")
    assert again.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 1


def cancelled(
    site: SiteUnderTest, target: str, cookies: dict[str, str], begun: Callable[[], bool]
) -> None:
    """Ask for a page under ASGI and go away once `begun`, as a server cancels a request's task."""
    scope = asgi_scope(
        target.encode(), headers=[(b"host", b"localhost"), (b"cookie", cookies["cookie"].encode())]
    )

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await anyio.sleep_forever()
        return messages.pop()

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nobody is there to read an answer")

    portal: Any = site.browser().portal  # type: ignore[attr-defined]
    task = portal.start_task_soon(site.asgi, scope, receive, send)
    until(begun)
    assert task.cancel()
    until(task.done)


@pytest.mark.parametrize("kind", ["asgi"], indirect=True)
def test_a_client_that_leaves_during_a_refresh(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """The token request of a cancelled call ends, and its rotated token is stored (row 100)."""
    clock.advance(3601)
    provider.faults.set("token", delay=0.3)
    cancelled(site, "/call/spotify/me", cookie_header(browser), lambda: provider.count["token"] == 1)
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 1
    assert provider.count["me"] == 1, "only the second caller's call was made"


@pytest.mark.parametrize("kind", ["asgi"], indirect=True)
@pytest.mark.parametrize("purpose", ["login", "link"])
def test_a_client_that_leaves_during_a_callback(
    site: SiteUnderTest, provider: LocalProvider, purpose: str
) -> None:
    """A callback that nobody waits for is finished; the browser can go on or start again (row 100)."""
    browser = site.browser()
    if purpose == "link":
        site.login(browser, "twitter")
        url = site.authorize(location(site.post(browser, "/spotify/link", next="/who")))
    else:
        url = site.authorize(start(site, browser))
    provider.faults.set("token", delay=0.3)
    target = url.removeprefix(site.base)
    cancelled(site, target, cookie_header(browser), lambda: provider.count["token"] == 1)
    again = browser.get(url, headers=PAGE)
    assert provider.count["token"] == 1
    # While the exchange is still running, the reload waits for it and gets its session.
    assert location(again) == f"{site.base}/who"
    assert "spotify:1001" in who(browser)["links"]


@pytest.mark.parametrize("kind", ["asgi"], indirect=True)
def test_many_waiters_leave(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider, clock: Clock
) -> None:
    """Ten callers that all go away leave one refresh and a good token behind (row 94, row 100)."""
    clock.advance(3601)
    provider.faults.set("token", delay=0.4)
    cookies = cookie_header(browser)
    with ThreadPoolExecutor(10) as pool:
        leaving = [
            pool.submit(
                cancelled, site, "/call/spotify/me", cookies, lambda: provider.count["token"] == 1
            )
            for _ in range(10)
        ]
        for one in leaving:
            one.result(timeout=10)
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 1


def test_a_short_lived_token_is_not_refreshed_on_every_call(
    site: SiteUnderTest, provider: LocalProvider
) -> None:
    """A token of 8 s, shorter than the leeway, serves for three quarters of its life."""
    provider.access_token_lifetime = 8
    browser = site.browser()
    site.login(browser)
    provider.count.clear()
    for _ in range(10):
        assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 0


def test_no_refresh_without_need(
    site: SiteUnderTest, browser: httpx2.Client, provider: LocalProvider
) -> None:
    """Pages that call nothing, and calls with a good token, refresh nothing."""
    for _ in range(5):
        who(browser)
        browser.get("/_oauth/", headers=PAGE)
        browser.get("/call/spotify/me")
    assert provider.count["token"] == 0
