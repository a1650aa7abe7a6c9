"""What a fourth reading of commits, paths, rules and threads found, by a stranger and attacker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

import oauthgate
from oauthgate import access_rules
from oauthgate.access_rules import Rule
from oauthgate.errors import StoreError
from oauthgate.routes import used_flows
from oauthgate.stepping import run
from oauthgate.stores.sqlite import SQLiteStore
from oauthgate.stores.sqlite_commit import Answers, Together
from oauthgate.stores.sqlite_writer import Writer
from oauthgate.stores.threads import Threads
from oauthgate.testing import LocalProvider
from tests.access.links import link
from tests.flows.steps import JSON, cookie_header, start
from tests.flows.test_refresh import cancelled
from tests.support import SiteUnderTest, make_config

# -- commits


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(f"sqlite:///{tmp_path}/gate.db")


async def waiting(store: SQLiteStore) -> tuple[Writer, list[asyncio.Task[int]]]:
    """Nine writes that wait for the commit of a tenth."""
    await store.put("first", b"v")
    puts = [asyncio.ensure_future(store.put(f"k/{number}", b"v")) for number in range(10)]
    await asyncio.sleep(0)
    (opened,) = store._writers.values()
    return opened.result(), puts


async def written(store: SQLiteStore) -> int:
    return len([key async for key, _ in store.scan("k/")])


def test_what_waits_is_written_before_the_store_is_closed(store: SQLiteStore) -> None:
    """A write that was asked for before the end is done, also while the first commit is under way."""

    async def main() -> None:
        writer, puts = await waiting(store)
        assert len(writer._waiting) == 9
        await store.close()
        assert all(isinstance(version, int) for version in await asyncio.gather(*puts))
        assert await written(store) == 10
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_a_commit_that_is_cancelled_leaves_nobody_waiting(
    store: SQLiteStore, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who cancels every task of the loop (a framework's shutdown) meets that of a commit too:
    whoever waits for it gets an answer, and the next write is done."""

    async def main() -> None:
        writer, puts = await waiting(store)
        commit, entered = writer._connection.commit_together, asyncio.Event()

        async def slow(work: list[Together]) -> list[Answers]:
            entered.set()
            await asyncio.sleep(0.05)
            return await commit(work)

        monkeypatch.setattr(writer._connection, "commit_together", slow)
        while writer._next is None:
            await asyncio.sleep(0)
        if begun:
            await entered.wait()
        writer._next.cancel()
        answers = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 20)
        assert isinstance(answers[0], int)
        assert {type(answer) for answer in answers[1:]} == {StoreError if begun else int}
        await asyncio.wait_for(store.put("k/next", b"v"), 20)
        assert await written(store) == (2 if begun else 11)
        await store.close()

    asyncio.run(main())


def test_a_loop_that_was_dropped_sends_nothing_to_the_next_one() -> None:
    """Writes of a loop that was closed in the middle are collected while another one runs: theirs is not
    its business."""

    class Hanging:
        async def commit_together(self, work: list[Together]) -> list[Answers]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return] # it never ends

    async def drop() -> list[Coroutine[Any, Any, Answers]]:
        writer = Writer(cast("Any", Hanging()))
        writes = [writer.write(()) for _ in range(3)]
        for write in writes:
            write.send(None)
        return writes

    async def collect(writes: list[Coroutine[Any, Any, Answers]]) -> int:
        for write in writes:
            write.close()
        return len(asyncio.all_tasks())

    assert asyncio.run(collect(asyncio.run(drop()))) == 1


# -- protected paths


def test_bytes_that_an_application_ignores_hide_no_path(tmp_path: Path) -> None:
    """`/admin%FF` is `/admin` to who decodes with `errors="ignore"`, as Bottle does."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    config["access"] = {"protect": ["/admin/*", "/exact"]}
    reached: list[str] = []

    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        reached.append(environ["PATH_INFO"].encode("latin-1").decode("utf-8", "ignore"))
        start("200 OK", [])
        return [b""]

    gate = oauthgate.WSGIGate(application, config)
    for raw in (
        b"/admin\xff",
        b"/adm\xffin/x",
        b"/\xc3admin",
        b"/exact\xed\xa0\x80",
        b"/adm%ffin",
        b"/ok\xff",
    ):
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": raw.decode("latin-1"),
            "HTTP_HOST": "app.test",
            "wsgi.url_scheme": "https",
        }
        b"".join(gate(environ, lambda *_: None))
    assert reached == ["/ok"]
    gate.close()


# -- rules


@pytest.mark.parametrize("email", ["@é." * 160, "@" * 500, "a" * 255 + "@example.org", "a@" * 5 + "b"])
def test_what_is_nobodys_address_is_refused_without_being_spelt(
    email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider may let people write any text for an address: reading 500 characters in every way took
    a fifth of a second, for each rule and at each visit. What cannot be told counts for a `deny`."""
    monkeypatch.setattr(access_rules, "_domain_spellings", lambda domain: pytest.fail("was spelt"))
    assert Rule(domain="evil.org").excludes(link("corp", "1", email=email))
    assert not Rule(domain="evil.org").admits(link("corp", "1", email=email, verified=True))


def test_an_open_socket_obeys_the_rules_as_a_request_does(tmp_path: Path) -> None:
    """A session whose account was unlinked goes on nowhere while there are rules; nor in a socket."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    config["access"] = {"allow": ["twitter:1", "spotify:2"]}
    wsgi = oauthgate.WSGIGate(lambda environ, start: [], config)
    gate = wsgi.gate
    ticket, user, _ = run(gate.accounts.login(link("twitter", "1")))
    (session,) = user.sessions
    run(gate.accounts.attach(user.id, session.id, link("spotify", "2")))
    current = gate._standing(user, session)

    async def stands() -> bool:
        return await current() is not None

    assert run(stands())
    assert run(gate.visit(ticket, bearer=False)) is not None
    run(gate.accounts.detach(user.id, "twitter", "1"))
    assert run(gate.visit(ticket, bearer=False)) is None
    assert not run(stands())
    wsgi.close()


# -- callbacks


@pytest.mark.parametrize("kind", ["asgi"], indirect=True)
def test_a_callback_that_nobody_waits_for_says_that_it_failed(
    site: SiteUnderTest, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that left during a callback that fails, and comes again, is told so at once: the first
    delivery gives the flow up although its caller was cancelled."""
    monkeypatch.setattr(used_flows, "WAIT", 3.0)
    browser = site.browser()
    url = site.authorize(start(site, browser))
    provider.faults.set("token", status=400, delay=0.3)
    target = url.removeprefix(site.base)
    cancelled(site, target, cookie_header(browser), lambda: provider.count["token"] == 1)
    again = browser.get(url, headers=JSON)
    assert (again.status_code, again.json()["error"]) == (400, "flow_used")
    # Else it would have waited to the end: "finished or given up already".
    assert again.json()["error_description"] == "this sign-in was finished already; start again"


# -- threads


def test_a_system_without_threads_is_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RuntimeError: can't start new thread` is no 500, and takes no place for good."""

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        threads = Threads("Store", limit=2, patience=0.05)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none)
            for _ in range(3):
                with pytest.raises(StoreError):
                    await threads.run(lambda: None)
        both = threading.Barrier(2)
        threads._patience = 20.0
        assert sorted(await asyncio.gather(*(threads.run(lambda: both.wait(20)) for _ in range(2)))) == [
            0,
            1,
        ]

    asyncio.run(main())
