"""The table of faults: every engine, all that can befall it, during a login, a call and a refresh.

The outcome is the same every time: 503 with Retry-After and no cookie for who needs the store, untouched
service for who does not, recovery without a restart, no lost token and no half-made link (row 102).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate import leases, unsaved
from oauthgate.routes import used_flows
from oauthgate.stores import sqlite as sqlite_store
from oauthgate.testing import LocalProvider
from tests.flows.steps import who
from tests.servers.dynamodb import DynamoDB, dynamodb
from tests.servers.redis import RedisServer, redis_server, until
from tests.support import PAGE, Kind, SiteUnderTest, site_under_test

from . import dynamodb_places, engines
from .conftest import entered
from .engines import FAULTS, READS, TABLE, Place
from .outcomes import refused, untouched
from .small_disk import SmallDisk, small_disk

MOMENTS = ["login", "call", "refresh"]


@pytest.fixture(scope="module")
def redis_and_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, SmallDisk]]:
    """A server that keeps what it has answered, on a small disk."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path_factory.mktemp("redis") / "small"))
        options = {"appendonly": "yes", "dir": str(disk.folder)}
        yield entered(stack, redis_server(options)), disk


@pytest.fixture(scope="module")
def moto() -> Iterator[DynamoDB]:
    with ExitStack() as stack:
        yield entered(stack, dynamodb())


@pytest.fixture
def place(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """An empty store on the engine, with the ways in which it can fail."""
    with ExitStack() as stack:
        if engine == "sqlite":
            # Here nobody is to wait long for the other writer; test_long_locks.py has the real wait.
            monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT", 200)
            yield stack.enter_context(engines.sqlite(tmp_path))
        elif engine == "redis":
            yield stack.enter_context(engines.redis(*request.getfixturevalue("redis_and_disk")))
        elif engine == "postgres":
            pg, schema = (request.getfixturevalue(name) for name in ("pg", "schema"))
            yield stack.enter_context(engines.postgres(pg, schema))
        else:
            dynamodb_places.credentials(monkeypatch)
            table = f"t-{request.getfixturevalue('schema')}"
            yield stack.enter_context(engines.dynamodb(request.getfixturevalue("moto"), table))


@pytest.fixture
def site(
    kind: Kind, place: Place, config: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[SiteUnderTest]:
    """A site on that store, in which nothing is believed."""
    url = place.far if "where" in request.fixturenames else place.url
    config["oauthgate"] |= {"store": url, "secret": "s" * 32, "near_cache": 0}
    with site_under_test(kind, config) as found:
        yield found


def signed_in(site: SiteUnderTest) -> tuple[httpx2.Client, str]:
    """A browser that has signed in, and who it is."""
    browser = site.browser()
    assert site.login(browser).status_code == 303
    user_id: str = who(browser)["user_id"]
    assert user_id
    return browser, user_id


def whole(config: dict[str, Any], links: int = 1) -> None:
    """Nothing is half made: so many users have a link, and every link is active."""
    with oauthgate.open(config) as gate:
        held = [user.links for user in gate.users()]
    assert len([each for each in held if each]) == links, held
    assert all(link.state == "active" for each in held for link in each)


@pytest.mark.parametrize(("engine", "fault"), FAULTS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault(
    site: SiteUnderTest,
    place: Place,
    config: dict[str, Any],
    provider: LocalProvider,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    fault: str,
    moment: str,
) -> None:
    """One fault of one engine, from right before the moment until after it."""
    # A second delivery of a callback waits for the first; here nobody is to wait for long.
    monkeypatch.setattr(used_flows, "WAIT", 0.5)
    browser, user_id = signed_in(site)
    cookies = dict(browser.cookies)
    reads = TABLE[engine][fault] is READS
    grace = site.browser()
    callback = site.authorize(grace.get("/_oauth/spotify/login?next=/who").headers["location"], "grace")
    csrf = site.csrf(browser)
    if moment == "refresh":
        provider.expire_access_tokens()
    tokens = provider.count["token"]
    with place.begin[fault]():
        untouched(site)
        if moment == "login":
            refused(grace.get(callback))
            assert not grace.cookies.get("oauthgate")
        elif moment == "refresh":
            refused(browser.get("/call/spotify/me"))
        else:
            # Twice: with the connections of before, and with new ones. A wait is waited for once.
            for _ in range(1 if fault == "paused" else 2):
                for path in ("/who", "/_oauth/session", "/call/spotify/me"):
                    answer = browser.get(path)
                    if reads:
                        assert answer.status_code == 200, answer.text
                        assert "set-cookie" not in answer.headers
                    else:
                        refused(answer)
            refused(browser.post("/_oauth/logout", data={"csrf_token": csrf}, headers=site.origin()))
        assert provider.count["token"] == tokens, "no code and no refresh token is used up for nothing"
        untouched(site)
        assert dict(browser.cookies) == cookies
    assert who(browser)["user_id"] == user_id
    assert browser.get("/call/spotify/me").status_code == 200
    if grace.get(callback).status_code != 303:
        # What was not redeemed is good after the fault. But an engine that was only paused may do later
        # what it was asked for meanwhile, and then the flow is marked as used.
        assert (moment, fault) == ("login", "paused")
        assert site.login(grace, account="grace").status_code == 303
    assert who(grace)["user_id"] not in (None, user_id)
    assert site.post(browser, "/logout").status_code == 200
    assert who(browser)["user_id"] is None
    assert site.login(browser).status_code == 303
    assert who(browser)["user_id"] == user_id
    whole(config, links=2)


@pytest.mark.parametrize("engine", list(TABLE))
@pytest.mark.parametrize("patience", [0.0, 30.0], ids=["longer", "shorter"])
def test_a_fault_in_the_middle_of_a_refresh(
    site: SiteUnderTest,
    place: Place,
    config: dict[str, Any],
    provider: LocalProvider,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    patience: float,
) -> None:
    """The provider has used up the old token, and the store does not take the new one: the call waits a
    moment for the store, and if that is not enough the next call saves it."""
    monkeypatch.setattr(unsaved, "PATIENCE", patience)
    browser, _ = signed_in(site)
    provider.expire_access_tokens()
    provider.faults.set("token", delay=0.5, after=True, times=1)
    before = provider.count["token"]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(browser.get, "/call/spotify/me")
        until(lambda: provider.count["token"] == before + 1, "the request for a new token")
        with place.begin[next(iter(TABLE[engine]))]():
            if not patience:
                refused(call.result())
            else:
                time.sleep(1)  # so that the first attempt meets the fault
                assert not call.done()
        if patience:
            assert call.result().status_code == 200
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == before + 1, "the old token is not sent again"
    whole(config)


@pytest.mark.parametrize("engine", ["redis", "postgres", "dynamodb"])
def test_data_that_is_lost(site: SiteUnderTest, place: Place, engine: str) -> None:
    """An engine that comes back empty: nobody is signed in, everybody can sign in, nothing is broken."""
    browser, user_id = signed_in(site)
    place.lose()
    for path, status in (("/who", 200), ("/_oauth/session", 401), ("/call/spotify/me", 401)):
        assert browser.get(path).status_code == status
    assert who(browser)["user_id"] is None
    assert signed_in(site)[1] != user_id
    assert site.login(browser).status_code == 303
    assert browser.get("/call/spotify/me").status_code == 200


@pytest.mark.parametrize("engine", ["redis", "postgres", "dynamodb"])
@pytest.mark.parametrize("where", ["requests", "answers"])
@pytest.mark.parametrize("moment", [*MOMENTS, "link", "unlink"])
def test_a_connection_that_is_cut(
    site: SiteUnderTest,
    place: Place,
    config: dict[str, Any],
    provider: LocalProvider,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    where: str,
    moment: str,
) -> None:
    """Each request in turn that the store sends is cut off, on its way or on the way back: the visitor
    gets what he asked for, or 503 and nothing is half done."""
    # Who lets go of a lease is cut off too; nobody is to wait long for its end.
    monkeypatch.setattr(leases, "LEASE", 2.0)
    signed, user_id = signed_in(site)
    spare = 0
    while True:
        if moment == "unlink" and who(signed)["services"] == ["spotify"]:
            assert site.link(signed, "twitter").status_code == 303
        if moment == "refresh":
            provider.expire_access_tokens()
        browser = site.browser() if moment == "login" else signed
        form = {"csrf_token": site.csrf(signed)}
        headers = {**site.origin(), **PAGE}
        callback = ""
        if moment == "login":
            started = browser.get("/_oauth/spotify/login?next=/who")
            callback = site.authorize(started.headers["location"])
        elif moment == "link":
            started = browser.post("/_oauth/twitter/link", data=form, headers=headers)
            callback = site.authorize(started.headers["location"])
        before = browser.cookies.get("oauthgate")
        place.cut(spare, where)
        if callback:
            answer = browser.get(callback)
        elif moment == "unlink":
            answer = browser.post("/_oauth/twitter/unlink", data=form, headers=headers)
        else:
            answer = browser.get("/call/spotify/me")
        over = place.uncut()
        if answer.status_code not in (200, 303):
            assert not over, answer.text
            refused(answer)
            assert browser.cookies.get("oauthgate") == before
        elif moment == "login":
            assert who(browser)["user_id"] == user_id
        assert who(signed)["user_id"] == user_id
        # A refresh that could not begin is not tried again for two seconds.
        until(
            lambda: signed.get("/call/spotify/me").status_code == 200,
            f"the token, after {answer.status_code} for the cut at {spare}",
            seconds=15,
        )
        if over:
            break
        spare += 1
    assert spare > 0
    whole(config)
