"""What one event loop may conclude from what it heard, step by step: reads and news that cross."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis import ResponseError

from oauthgate.errors import StoreError
from oauthgate.records import User
from oauthgate.seal import Keys
from oauthgate.stepping import run
from oauthgate.stores import ABSENT, Record
from oauthgate.stores import recheck as recheck_module
from oauthgate.stores.memory import MemoryStore
from oauthgate.stores.recheck import KEEP, Recheck, rechecking
from oauthgate.stores.redis_url import read_url
from oauthgate.stores.redis_watch import RedisWatch
from oauthgate.stores.watch import LIMIT, Watch, Watches
from oauthgate.vault import Opened, Vault

WITHIN = 3.0
KEY = "user/a"


class Time:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Listening(MemoryStore):
    """A store that is told by the test what happens, if need be while a record is being read."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.heard = Watch(WITHIN, self.time)
        self.within = 0.0
        self.meanwhile: Callable[[], object] | None = None

    def watch(self, within: float) -> None:
        self.within = within

    def stamp(self, key: str) -> object | None:  # type: ignore[override] # memory's never is None
        return self.heard.stamp(key)

    async def get(self, key: str) -> Record | None:
        found = await super().get(key)
        if self.meanwhile is not None and key == KEY:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return found


@pytest.fixture
def store() -> Listening:
    return Listening()


@pytest.fixture
def vault(store: Listening, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """A vault that believes nothing because of the time."""
    made = Vault(store, Keys([b"k" * 32]), 5.0)
    assert store.within == 5.0
    monkeypatch.setattr(made, "near", 0.0)
    run(made.put(KEY, User(id="a", created=0), expect=ABSENT))
    store.heard.answered(store.time.now)
    return made


def opened(vault: Vault) -> Opened:
    found = run(vault.opened("a"))
    assert found is not None
    return found


def test_believed_until_it_changes(store: Listening, vault: Vault) -> None:
    found = opened(vault)
    store.heard.changed("user/b")
    assert vault.holds(found)
    store.heard.changed(KEY)
    assert not vault.holds(found)
    assert vault.holds(opened(vault))


@pytest.mark.parametrize("what", ["changed", "flushed", "lost", "lost and back"])
def test_news_while_it_is_read(store: Listening, vault: Vault, what: str) -> None:
    """The answer may be of before: it is not believed."""

    def meanwhile() -> None:
        if what == "changed":
            store.heard.changed(KEY)
        elif what == "flushed":
            store.heard.all_changed()
        else:
            store.heard.lost()
        if what == "lost and back":
            store.heard.answered(store.time.now)

    store.meanwhile = meanwhile
    assert not vault.holds(opened(vault))
    store.heard.answered(store.time.now)
    assert vault.holds(opened(vault)), "read once more, it is"


def test_a_write_of_ours_while_it_is_read(store: Listening, vault: Vault) -> None:
    """Before the store tells of it."""
    _, version = run(vault.user("a")) or (None, 0)
    user = User(id="a", created=1)
    store.meanwhile = lambda: run(vault.put(KEY, user, expect=version))
    assert not vault.holds(opened(vault))


def test_read_before_the_first_answer(store: Listening, vault: Vault) -> None:
    """What was read while nobody listened is not believed because somebody does now."""
    store.heard.lost()
    found = opened(vault)
    store.heard.answered(store.time.now)
    assert not vault.holds(found)


def test_believed_no_longer_than_something_is_heard(store: Listening, vault: Vault) -> None:
    """What counts is when the question was sent, not when its answer came."""
    found = opened(vault)
    asked = store.time.now
    store.time.now += WITHIN / 2
    store.heard.answered(asked)
    store.time.now = asked + WITHIN - 0.1
    assert vault.holds(found)
    store.time.now = asked + WITHIN
    assert not vault.holds(found) and store.stamp(KEY) is None
    store.heard.answered(store.time.now - 0.1)
    assert vault.holds(found), "nothing was told of meanwhile, and what was is told before an answer"
    store.heard.answered(asked)
    assert vault.holds(found), "an older answer takes nothing back"


def test_time_goes_on_where_nothing_is_heard(store: Listening) -> None:
    """Without a stamp a user is believed for `near_cache` seconds, as of any other store."""
    vault = Vault(store, Keys([b"k" * 32]), 60.0)
    run(vault.put(KEY, User(id="a", created=0), expect=ABSENT))
    found = opened(vault)
    assert vault.holds(found)
    store.heard.answered(store.time.now)
    assert vault.holds(found)


def test_switched_off(store: Listening) -> None:
    """With 0 nobody is asked to listen, and what could be heard is not looked at."""
    vault = Vault(store, Keys([b"k" * 32]), 0.0)
    run(vault.put(KEY, User(id="a", created=0), expect=ABSENT))
    store.heard.answered(store.time.now)
    assert store.within == 0.0 and not vault.holds(opened(vault))


def test_memory_is_bounded(store: Listening, vault: Vault) -> None:
    """Of very many users the first ones are forgotten, which costs a read and nothing else."""
    found = opened(vault)
    for number in range(LIMIT):
        store.stamp(f"user/{number}")
    assert len(store.heard._marks) == LIMIT
    assert not vault.holds(found)
    assert vault.holds(opened(vault))


# -- the task


def test_listening_goes_on_after_any_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of every kind end one attempt, and one line a cause is written; nothing is believed in
    between."""
    monkeypatch.setattr("oauthgate.stores.watch.SETTLE", 0.0)
    monkeypatch.setattr("oauthgate.stores.watch.FIRST_PAUSE", 0.001)
    caplog.set_level("INFO", "oauthgate.store")
    causes = [StoreError("gone"), StoreError("gone"), StoreError("never"), KeyError("secret"), None]
    attempts: list[object] = []
    done: asyncio.Future[None]

    async def follow(watch: Watch) -> None:
        attempts.append(watch.stamp("user/a"))
        if not causes:
            done.set_result(None)
            await asyncio.sleep(3600)
        cause = causes.pop(0)
        watch.answered(watch.clock())
        assert watch.stamp("user/a") is not None
        if len(causes) == 3:
            watch.lost()  # the second attempt never came so far
        if cause is not None:
            raise cause

    async def main() -> None:
        nonlocal done
        done = asyncio.get_running_loop().create_future()
        watches = Watches(Watch, follow, "Engine")
        assert watches.stamp("user/a") is None and not attempts, "not started"
        watches.start(30.0)
        watches.start(60.0)
        assert watches.stamp("user/a") is None
        await asyncio.wait_for(done, 20)
        assert watches.stamp("user/a") is None
        await watches.close()
        await watches.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert attempts == [None] * 6
    said = [record.getMessage() for record in caplog.records]
    assert ["gone" in each for each in said] == [True, False, False, False]
    assert "never" in said[1] and "Engine: failed with KeyError" in said[2]
    assert not any("secret" in each for each in said)
    assert all("believed for 30 s" in each for each in said)


def test_no_loop_no_listening() -> None:
    """Without an event loop nothing is begun, in whatever thread."""

    async def follow(watch: Watch) -> None:
        raise AssertionError(watch)

    watches = Watches(Watch, follow, "Engine")
    watches.start(30.0)
    assert watches.stamp("user/a") is None


# -- Redis' side of it, answer by answer


class Wire:
    """A connection of redis-py on which every question is answered `slow` seconds later."""

    def __init__(self, time: Time, slow: float) -> None:
        self.time = time
        self.slow = slow
        self.errors = ()
        self.answered = ResponseError
        self.questions = 0
        self._parser = self
        self._told: Callable[[list[Any]], Awaitable[object]] | None = None

    def apart(self) -> Wire:
        return self

    def failing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def set_invalidation_push_handler(self, told: Callable[[list[Any]], Awaitable[object]]) -> None:
        self._told = told

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def send_command(self, *command: object) -> None:
        self.questions += command[0] == "INFO"

    async def read_response(self, **options: object) -> bytes:
        if not options.get("push_request"):
            return b"OK"
        if self.questions > 2:
            await asyncio.sleep(3600)
        self.time.now += self.slow
        return b"role:master"

    async def write(self, key: str) -> None:
        assert self._told is not None
        await self._told([b"invalidate", [b"oauthgate:" + key.encode()]])


async def never(recheck: Recheck, until: float = 0.0, /) -> None:
    raise AssertionError("there is no need to ask")


@pytest.mark.parametrize(("slow", "believed"), [(WITHIN - 0.1, True), (WITHIN, False)])
def test_an_answer_that_took_long_proves_little(slow: float, believed: bool) -> None:
    """What counts is when the question was sent: something may have changed since it was answered."""
    time = Time()
    wire, watch = Wire(time, slow), Watch(WITHIN, time)
    place = read_url("redis://localhost")

    async def main() -> None:
        redis = RedisWatch(place, wire, wire.write, never)  # type: ignore[arg-type] # doubles
        following = asyncio.ensure_future(redis.listen(watch))
        while not watch.alive:
            await asyncio.sleep(0)
        assert (watch.stamp(KEY) is not None) is believed
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(main())
    assert not watch.alive


# -- asking for all at once


@pytest.fixture
def recheck() -> Recheck:
    return Recheck(WITHIN, Time())


def later(recheck: Recheck, seconds: float) -> None:
    recheck.clock.now += seconds  # type: ignore[attr-defined]


def test_a_version_is_a_stamp(recheck: Recheck) -> None:
    """For as long as `within` after it was asked for, and of what was asked for only."""
    assert recheck.stamp(KEY) is None and recheck.stamp("user/b") is None
    asked = recheck.clock()
    later(recheck, 1.0)
    recheck.found(asked, [KEY], {KEY: 7})
    assert recheck.stamp(KEY) == 7 and recheck.stamp("user/b") is None
    later(recheck, WITHIN - 1.1)
    assert recheck.stamp(KEY) == 7
    later(recheck, 0.1)
    assert recheck.stamp(KEY) is None
    recheck.found(recheck.clock(), [KEY], {KEY: 7})
    assert recheck.stamp(KEY) == 7
    recheck.lost()
    assert recheck.stamp(KEY) is None and not recheck.alive


def test_what_is_gone_is_like_nothing_before(recheck: Recheck) -> None:
    """A deleted record is read anew at once, not when `near_cache` is over."""
    recheck.stamp(KEY)
    recheck.found(recheck.clock(), [KEY], {KEY: 7})
    recheck.found(recheck.clock(), [KEY], {})
    gone = recheck.stamp(KEY)
    assert gone is not None and gone != 7
    recheck.found(recheck.clock(), [KEY], {})
    assert recheck.stamp(KEY) != gone


def test_only_what_is_of_use_is_asked_for(recheck: Recheck, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody needed for a while is not, and of too much the rest."""
    monkeypatch.setattr(recheck_module, "LIMIT", 3)
    for name in "abc":
        recheck.stamp(name)
    later(recheck, KEEP - 1)
    recheck.stamp("a")
    recheck.stamp("d")
    assert recheck.used() == ["c", "a", "d"]
    recheck.found(recheck.clock(), ["b", "c"], {"b": 1, "c": 1})
    later(recheck, 1.1)
    assert recheck.used() == ["a", "d"]
    assert not recheck.alive, "what was forgotten is not kept"
    later(recheck, KEEP)
    assert recheck.used() == []


def test_nothing_is_asked_while_nothing_is_of_use() -> None:
    """A process without requests sends nothing; a failure ends the attempt."""
    recheck = Recheck(0.1)
    sent: list[list[str]] = []

    async def versions(keys: Sequence[str]) -> dict[str, int]:
        sent.append(list(keys))
        if len(sent) == 3:
            raise StoreError("gone")
        return {KEY: 1}

    async def main() -> None:
        following = asyncio.ensure_future(rechecking(versions)(recheck))
        await asyncio.sleep(0.2)
        assert not sent
        recheck.stamp(KEY)
        with pytest.raises(StoreError):
            await asyncio.wait_for(following, 20)

    asyncio.run(main())
    assert sent == [[KEY]] * 3
