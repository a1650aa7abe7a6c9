"""Under WSGI no task can hear of changes: a read that has to be made asks for all users in use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oauthgate.errors import StoreError
from oauthgate.stepping import run
from oauthgate.stores import make_store
from oauthgate.stores.recheck import Carried, Recheck
from tests.flows.steps import CountingStore, counting, who
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer, redis_cluster, redis_server
from tests.support import Kind

from .conftest import entered
from .cutter import Cutter, to_postgres, to_redis
from .near_places import (
    Machines,
    obeyed,
    reads,
    restless,
    settled,
    signed_in,
    two_machines,
    visitor,
)
from .redis_places import own, started
from .test_sqlite import in_children

ENGINES = pytest.mark.parametrize("engine", ["redis", "postgres"])


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with ExitStack() as stack:
        yield entered(stack, redis_server())


@pytest.fixture
def url(engine: str, request: pytest.FixtureRequest) -> str:
    if engine == "redis":
        return own(f"redis://127.0.0.1:{request.getfixturevalue('redis').port}")
    pg: Postgres = request.getfixturevalue("pg")
    return pg.url(f"schema={request.getfixturevalue('schema')}")


@pytest.fixture
def machines(provider_url: str, tmp_path: Path) -> Iterator[Machines]:
    with two_machines(provider_url, tmp_path, near_cache="30s") as make:
        yield make


class Time:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def carried(store: Any, clock: Time) -> None:
    """Have a store's question go by that clock."""
    assert store.stamp("user/nobody") is None
    store._carried._recheck.clock = clock


def known(clock: Time, store: CountingStore, *browsers: httpx2.Client) -> None:
    """Everybody has been there, has been asked for, and has read since."""
    for _ in range(2):
        for browser in browsers:
            assert who(browser)["user_id"]
        clock.now += 2
    for browser in browsers:
        settled(store, browser)


@ENGINES
def test_one_read_serves_all(url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """When `near_cache` is over, the read of the first who comes asks for all who were there: the others
    read nothing, and in between nobody does."""
    here, there = machines(url, "wsgi", here="wsgi", near_cache="3s")
    clock = Time()
    carried(here.gate.store, clock)
    mine, hers = (visitor(here, signed_in(there, name)) for name in ("ada", "grace"))
    restless(monkeypatch)
    store = counting(here.gate)
    known(clock, store, mine, hers)
    for first, second in ((mine, hers), (hers, mine), (mine, hers)):
        clock.now += 3
        assert reads(store, first, 1) == 1
        assert reads(store, second, 50) == 0
        # Who asked has not read since, and so nothing to compare with, but for what time still says.
        assert reads(store, first, 2) == 1
        clock.now += 2.9
        assert reads(store, first, 50) == reads(store, second, 50) == 0


@ENGINES
@pytest.mark.parametrize("what", ["logout", "unlink", "deletion"])
def test_another_machine_is_obeyed(
    url: str, kind: Kind, machines: Machines, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What is done elsewhere is obeyed within `near_cache`, by its own clock and no other."""
    here, there = machines(url, kind, here="wsgi", near_cache="3s")
    clock = Time()
    carried(here.gate.store, clock)
    browser = signed_in(there)
    there.link(browser, "spotify")
    second, hers = visitor(here, browser), visitor(here, signed_in(there, "grace"))
    user_id = who(second)["user_id"]
    restless(monkeypatch)
    store = counting(here.gate)
    known(clock, store, second, hers)
    if what == "logout":
        assert there.post(browser, "/logout").status_code == 200
    elif what == "unlink":
        assert there.post(browser, "/spotify/unlink").status_code == 303
    else:
        deleting = make_store(url, blocking=True)
        assert run(deleting.delete(f"user/{user_id}")) is True
        run(deleting.close())
    assert who(second)["services"] == ["spotify", "twitter"], "this is what is believed"
    clock.now += 3
    assert reads(store, hers, 1) == 1, "somebody else's read asks"
    found = who(second)
    assert found["user_id"] == (user_id if what == "unlink" else None)
    assert found["services"] == (["twitter"] if what == "unlink" else [])


@ENGINES
def test_by_the_real_clock(url: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as it is in a process that runs."""
    here, there = machines(url, "wsgi", here="wsgi", near_cache="1s")
    browser = signed_in(there)
    second = visitor(here, browser)
    restless(monkeypatch)
    settled(counting(here.gate), second)
    assert there.post(browser, "/logout").status_code == 200
    obeyed(second)


@ENGINES
def test_a_read_that_carries_the_question_is_a_read(
    engine: str, url: str, request: pytest.FixtureRequest
) -> None:
    """It answers with the record, or with nothing, as any other, what is asked for beside it or not; and
    is sent again when its connection breaks."""
    port, counts = (
        (request.getfixturevalue("redis").port, to_redis)
        if engine == "redis"
        else (request.getfixturevalue("pg").port, to_postgres)
    )
    with contextlib.closing(Cutter(port, counts)) as cutter:
        far = url.replace(f":{port}", f":{cutter.port}")
        store: Any = make_store(far, blocking=True)
        store.watch(30.0)
        clock = Time()
        carried(store, clock)
        versions = {key: run(store.put(key, key.encode())) for key in ("user/a", "user/b", "k")}
        run(store.put("user/old", b"v", expires_at=time.time() - 1))
        names = ["user/a", "user/b", "user/old", "user/none"]
        for key in (*names, "k"):
            for name in names:
                store.stamp(name)
            clock.now += 4
            cutter.answers = 1
            record = run(store.get(key))
            assert record == ((key.encode(), versions[key], None) if key in versions else None)
            assert cutter.answers == 0
            assert [store.stamp(name) for name in names[:2]] == [versions["user/a"], versions["user/b"]]
            assert store.stamp("user/old") not in (None, store.stamp("user/none"))
        clock.now += 4
        cutter.answers = 2
        with pytest.raises(StoreError):
            run(store.get("user/a"))
        clock.now += 26
        assert store.stamp("user/a") is None, "what was not answered proves nothing"
        run(store.close())


def test_in_a_cluster() -> None:
    """One pipeline to each of its servers."""
    with started(redis_cluster()) as servers:
        store: Any = make_store(own(f"redis+cluster://127.0.0.1:{servers[0].port}"), blocking=True)
        store.watch(30.0)
        versions = {f"user/{number}": run(store.put(f"user/{number}", b"v")) for number in range(50)}
        for key in versions:
            store.stamp(key)
        assert run(store.get("user/7")) == (b"v", versions["user/7"], None)
        assert {key: store.stamp(key) for key in versions} == versions
        run(store.close())


# -- who asks


def test_one_asks_at_a_time() -> None:
    """Of many threads one carries the question, and the next one no sooner than a beat later."""
    carried = Carried()
    assert carried.question() is None and carried.stamp("user/a") is None, "not started"
    carried.start(3.0)
    carried.start(60.0)
    assert carried.question() is None, "nobody is there"
    for number in range(50):
        carried.stamp(f"user/{number}")
    barrier, asked, errors = threading.Barrier(8), [], []

    def work() -> None:
        try:
            barrier.wait(30)
            for number in range(2000):
                carried.stamp(f"user/{number}")
                question = carried.question()
                if question is not None:
                    asked.append(question)
                    question.recheck.found(
                        question.asked, question.keys, dict.fromkeys(question.keys, 1)
                    )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    times = sorted(question.asked for question in asked)
    assert times
    assert all(later - sooner >= 1.4 for sooner, later in pairwise(times))


def test_an_answer_that_comes_late() -> None:
    """Of two answers that overtake each other the one to the later question counts."""
    recheck = Recheck(3.0, Time())
    recheck.stamp("user/a")
    recheck.found(1000.0, ["user/a"], {"user/a": 2})
    recheck.found(999.0, ["user/a"], {"user/a": 1})
    assert recheck.stamp("user/a") == 2


def test_a_forked_child_begins_anew() -> None:
    """Another thread may have held the lock when it was forked."""
    carried = Carried()
    carried.start(30.0)
    carried.stamp("user/a")
    question = carried.question()
    assert question is not None
    question.recheck.found(question.asked, ["user/a"], {"user/a": 1})
    with question.recheck._lock:

        def child() -> None:
            assert carried.question() is None
            assert carried.stamp("user/a") is None

        assert in_children(child) == [0]
    assert carried.stamp("user/a") == 1
