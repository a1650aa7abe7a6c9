"""`kill -9` at every write of callback, link, unlink and logout (row 107).

Afterwards nothing is half done: whatever the store holds, each account has one owner, no link is without
its claim, sessions go on, and doing the same thing again works.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.gate import Gate
from oauthgate.records import AccountRecord, User, decode
from oauthgate.routes import used_flows
from oauthgate.stepping import iterate, run
from oauthgate.testing import Account, LocalProvider
from tests.support import Kind, SiteUnderTest

from .crash import KILLED, serve_once
from .steps import JSON, Clock, cookie_header, location, post_json, start, who

#: More writes than any of these requests makes.
MOST = 12


def killed(
    kind: Kind, config: dict[str, Any], fatal: int, *, together: bool = False, **request: Any
) -> bool:
    """Serve one request in a process that dies at its n-th write; whether it died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.flows.crash"])
    process = context.Process(target=serve_once, args=(kind, config, fatal, request, together))
    process.start()
    process.join(30)
    assert process.exitcode in (0, KILLED), process.exitcode
    return process.exitcode == KILLED


def every_write(attempt: Callable[[int], bool]) -> int:
    """Call `attempt(n)` for every write there is; how many there were."""
    for fatal in range(MOST):
        if not attempt(fatal):
            return fatal
    raise AssertionError("it never came to its end")


def check_store(gate: Gate) -> None:
    """What must hold at every moment: a link is never without its claim, an account has one owner."""
    store: Any = gate.vault.store
    users: list[User] = []
    claims: dict[str, str] = {}
    for key, stored in iterate(store.scan("user/")):
        users.append(decode(User, gate.keys.open(key, stored.value)))
    for key, stored in iterate(store.scan("account/")):
        claims[key] = decode(AccountRecord, gate.keys.open(key, stored.value)).user_id
    owners: Counter[str] = Counter()
    for user in users:
        for link in user.links:
            digest = gate.vault.hash_key("account", f"{link.identity}\x00{link.account_id}")
            owners[digest] += 1
            assert claims.get(f"account/{digest}") == user.id, "a link without its claim"
    assert all(count == 1 for count in owners.values()), "an account with two owners"


@pytest.fixture
def people(provider: LocalProvider) -> Callable[[], str]:
    """A new account at the provider for each attempt; its username."""
    numbers = iter(range(7000, 8000))

    def person() -> str:
        number = next(numbers)
        provider.accounts[str(number)] = Account(id=str(number), username=f"user{number}")
        return f"user{number}"

    return person


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload that finds a dead callback's marker gives up at once instead of waiting for it."""
    monkeypatch.setattr(used_flows, "WAIT", 0.2)


def reload(browser: httpx2.Client, url: str) -> None:
    """The browser's own retry of a callback that died: it ends well or in a clear 400, never in a
    500."""
    assert browser.get(url).status_code in (303, 400)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_callback(
    site: SiteUnderTest,
    config: dict[str, Any],
    kind: Kind,
    provider: LocalProvider,
    people: Callable[[], str],
    together: bool,
) -> None:
    """A sign-in that dies at any write: the next one works at once and makes one user."""

    def attempt(fatal: int) -> bool:
        person, browser = people(), site.browser()
        url = site.authorize(start(site, browser), person)
        before = provider.count["token"]
        headers = cookie_header(browser)
        died = killed(kind, config, fatal, together=together, method="GET", url=url, headers=headers)
        check_store(site_gate(site))
        reload(browser, url)
        assert provider.count["token"] <= before + 1, "a code was sent twice"
        assert site.login(browser, account=person).status_code == 303
        user = who(browser)["user_id"]
        again = site.browser()
        site.login(again, account=person)
        assert who(again)["user_id"] == user
        assert browser.get("/call/spotify/me").json()["username"] == person
        check_store(site_gate(site))
        return died

    assert every_write(attempt) >= (3 if together else 4)


def test_link(
    site: SiteUnderTest,
    config: dict[str, Any],
    kind: Kind,
    provider: LocalProvider,
    people: Callable[[], str],
    clock: Clock,
) -> None:
    """A link that dies at any write: the session lives, linking again works, and an account that was
    claimed and never linked is free again a minute later."""

    def attempt(fatal: int, *, retry: bool) -> bool:
        person, browser = people(), site.browser()
        site.login(browser, "corp", account=person)
        url = site.authorize(location(site.post(browser, "/spotify/link")), person)
        headers = cookie_header(browser)
        died = killed(kind, config, fatal, together=retry, method="GET", url=url, headers=headers)
        check_store(site_gate(site))
        assert who(browser)["user_id"] is not None
        reload(browser, url)
        if retry:
            assert site.link(browser, "spotify", account=person).status_code == 303
            assert browser.get("/call/spotify/me").json()["username"] == person
        else:
            linked = len(who(browser)["links"]) == 2
            clock.advance(61)
            other = site.browser()
            assert site.login(other, "spotify", account=person).status_code == 303
            assert (who(other)["user_id"] == who(browser)["user_id"]) == linked
        check_store(site_gate(site))
        return died

    assert every_write(lambda fatal: attempt(fatal, retry=True)) >= 3
    assert every_write(lambda fatal: attempt(fatal, retry=False)) >= 4


def test_unlink(
    site: SiteUnderTest, config: dict[str, Any], kind: Kind, people: Callable[[], str], clock: Clock
) -> None:
    """An unlink that dies at any write: the link is there or gone, and the account can be linked anew,
    by
    the same user at once, by another a minute later."""

    def attempt(fatal: int, *, same_user: bool) -> bool:
        person, browser = people(), site.browser()
        site.login(browser, "corp", account=person)
        site.link(browser, "spotify", account=person)
        body = {"csrf_token": site.csrf(browser)}
        headers = {**cookie_header(browser), **site.origin(), **JSON}
        died = killed(
            kind, config, fatal, method="POST", url="/_oauth/spotify/unlink", json=body, headers=headers
        )
        check_store(site_gate(site))
        links = len(who(browser)["links"])
        assert links in (1, 2)
        if links == 2:
            assert post_json(site, browser, "/spotify/unlink").status_code == 200
        if same_user:
            assert site.link(browser, "spotify", account=person).status_code == 303
            assert len(who(browser)["links"]) == 2
        else:
            clock.advance(61)
            other = site.browser()
            assert site.login(other, "spotify", account=person).status_code == 303
            assert who(other)["user_id"] != who(browser)["user_id"]
        check_store(site_gate(site))
        return died

    assert every_write(lambda fatal: attempt(fatal, same_user=True)) >= 2
    every_write(lambda fatal: attempt(fatal, same_user=False))


def test_logout(
    site: SiteUnderTest, config: dict[str, Any], kind: Kind, people: Callable[[], str]
) -> None:
    """A logout that dies: the session lives or is dead, and signing out again works."""

    def attempt(fatal: int) -> bool:
        browser = site.browser()
        site.login(browser, account=people())
        cookies = cookie_header(browser)
        body = {"csrf_token": site.csrf(browser)}
        headers = {**cookies, **site.origin(), **JSON}
        died = killed(
            kind, config, fatal, method="POST", url="/_oauth/logout", json=body, headers=headers
        )
        check_store(site_gate(site))
        if who(browser)["user_id"] is not None:
            assert post_json(site, browser, "/logout").status_code == 200
        assert site.browser().get("/who", headers=cookies).json()["user_id"] is None
        return died

    assert every_write(attempt) >= 1


def site_gate(site: SiteUnderTest) -> Gate:
    """The site's gate over its blocking store, which a test can read without an event loop."""
    if site.kind == "wsgi":
        return site.gate
    found: Gate = site.asgi.blocking_gate()
    run(found.vault.check_keys())
    return found
