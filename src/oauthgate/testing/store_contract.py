"""What a store must pass to be used by oauthgate, as tests that anybody can run on a store of theirs.

Owns: `StoreContract`, the executable form of `oauthgate.stores.Store`. It needs pytest and no plugin of
it; every test runs twice, stepped as under WSGI and on an event loop as under ASGI.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from ..errors import Conflict
from ..stepping import run as step
from ..stores import ABSENT, ANY, Expect, Store, Write, bridge

T = TypeVar("T")
PutAll = Callable[[Sequence[Write]], Awaitable[list[int]]]

#: Workers of a race.
RACERS = 12
#: Seconds in which a short-lived record of a test ends.
SOON = 0.3
#: Keys that a naive prefix search, pattern or separator would mix up.
HOSTILE_KEYS = (
    "user/a", "user/b", "user/%", "user/_", "user/*", "user/?", "user/[a]", "user/a/b", "user/a\\b",
    "user/'; --", 'user/"', "user/\u0001", "user/é", "user/漢字", "user/\U0001f3b5", "user/\U0010ffff",
    "user/\U0010ffffz", "user/ ", "user/:", "user/{a}", "user/", "user", "users/a", "user.a", "usera",
    "USER/a", "ser/a", "lease/user/a", "user0", "user\uffff",
)  # fmt: skip


class StoreContract:
    """Tests for a store. Subclass it in a test module and say how one is made:

        class TestMyStore(StoreContract):
            def make_store(self, blocking: bool) -> Store:
                return MyStore("mine://localhost/test", blocking=blocking)

    Every store that `make_store` returns within one test must see the same records, as the workers of
    one site do, and none of another test's. Set `survives_fork = False` for a store whose records are
    not outside the process.
    """

    survives_fork = True

    def make_store(self, blocking: bool) -> Any:  # noqa: ANN401 - of one colour or both, see `Store`
        """A store that has not been opened; `blocking` as in `oauthgate.stores.make_store`."""
        raise NotImplementedError("say in make_store how your store is made")

    def pytest_generate_tests(self, metafunc: Any) -> None:  # noqa: ANN401 - pytest is not imported here
        """Every test over both sides."""
        if "blocking" in metafunc.fixturenames:
            metafunc.parametrize("blocking", [True, False], ids=["blocking", "async"])

    # -- how the tests run

    def _run(self, blocking: bool, test: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """Run a scenario on a store of its own, opened before and closed after."""

        async def scenario() -> T:
            async with self._opened(blocking) as store:
                return await test(store)

        return step(scenario()) if blocking else asyncio.run(scenario())

    @contextlib.asynccontextmanager
    async def _opened(self, blocking: bool) -> AsyncIterator[Store]:
        store = bridge(self.make_store(blocking), blocking=blocking)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @staticmethod
    async def _sleep(blocking: bool, seconds: float) -> None:
        if blocking:
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    def _race(
        self, blocking: bool, attempt: Callable[[Store, int], Coroutine[Any, Any, bool]]
    ) -> list[bool]:
        """`RACERS` attempts at once, each third of them on a store of its own."""
        if not blocking:
            return asyncio.run(self._race_on_a_loop(attempt))
        barrier = threading.Barrier(RACERS)
        results: list[bool | BaseException] = [False] * RACERS

        async def racer(number: int) -> bool:
            async with self._opened(True) as store:
                barrier.wait(30)
                return await attempt(store, number)

        def work(number: int) -> None:
            try:
                results[number] = step(racer(number))
            except BaseException as error:
                results[number] = error

        threads = [threading.Thread(target=work, args=(number,)) for number in range(RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return _won(results)

    async def _race_on_a_loop(
        self, attempt: Callable[[Store, int], Coroutine[Any, Any, bool]]
    ) -> list[bool]:
        async with self._opened(False) as one, self._opened(False) as two, self._opened(False) as three:
            stores = [one, two, three]
            results = await asyncio.gather(
                *(attempt(stores[number % 3], number) for number in range(RACERS)),
                return_exceptions=True,
            )
        return _won(list(results))

    # -- reading and writing

    def test_what_was_written_is_read(self, blocking: bool) -> None:
        """A value comes back as it was, with its version and expiry; nothing comes back for another
        key."""

        async def test(store: Store) -> None:
            later = float(int(time.time()) + 1000)
            first = await store.put("user/a", b"one")
            second = await store.put("user/b", b"two", expires_at=later)
            assert await store.get("user/a") == (b"one", first, None)
            assert await store.get("user/b") == (b"two", second, later)
            assert await store.get("user/c") is None
            assert await store.get("user/") is None
            assert isinstance(first, int)
            record = await store.get("user/a")
            assert record is not None and isinstance(record.value, bytes)

        self._run(blocking, test)

    def test_overwriting_changes_the_version(self, blocking: bool) -> None:
        """Every write, of whatever expectation, changes the version, and replaces value and expiry."""

        async def test(store: Store) -> None:
            versions = [await store.put("k", b"0", expires_at=time.time() + 1000)]
            for number in range(1, 10):
                expect: Expect = versions[-1] if number % 2 else ANY
                versions.append(await store.put("k", str(number).encode(), expect=expect))
            assert len(set(versions)) == len(versions)
            assert await store.get("k") == (b"9", versions[-1], None)

        self._run(blocking, test)

    def test_the_same_value_is_a_write_too(self, blocking: bool) -> None:
        """Writing what is there already changes the version: a reader must be able to notice it."""

        async def test(store: Store) -> None:
            first = await store.put("k", b"v")
            second = await store.put("k", b"v", expect=first)
            assert second != first
            await _refused(store.put("k", b"v", expect=first))

        self._run(blocking, test)

    def test_expectations_of_a_write(self, blocking: bool) -> None:
        """ABSENT needs nothing to be there, a version exactly that version, ANY nothing; a refused
        write changes nothing."""

        async def test(store: Store) -> None:
            await _refused(store.put("k", b"no", expect=1))
            await _refused(store.put("k", b"no", expect=0))
            assert await store.get("k") is None
            version = await store.put("k", b"yes", expect=ABSENT)
            await _refused(store.put("k", b"no", expect=ABSENT))
            await _refused(store.put("k", b"no", expect=version + 1))
            await _refused(store.put("k", b"no", expect=version - 1))
            assert await store.get("k") == (b"yes", version, None)
            newer = await store.put("k", b"newer", expect=version)
            await _refused(store.put("k", b"no", expect=version))
            assert await store.get("k") == (b"newer", newer, None)

        self._run(blocking, test)

    def test_deleting(self, blocking: bool) -> None:
        """A delete says whether a record was there, and with a version removes only that one."""

        async def test(store: Store) -> None:
            assert await store.delete("k") is False
            await _refused(store.delete("k", expect=1))
            version = await store.put("k", b"v")
            await _refused(store.delete("k", expect=version + 1))
            assert await store.get("k") is not None
            assert await store.delete("k", expect=version) is True
            assert await store.get("k") is None
            await _refused(store.delete("k", expect=version))
            await store.put("k", b"v")
            assert await store.delete("k") is True
            assert await store.delete("k") is False

        self._run(blocking, test)

    def test_versions_never_return(self, blocking: bool) -> None:
        """A version of a key is never given again: not after a delete, and not after an expiry. Else a
        writer that slept could take another record for the one it read."""

        async def test(store: Store) -> None:
            seen: list[int] = []
            for number in range(20):
                seen.append(await store.put("k", b"v", expect=ABSENT))
                seen.append(await store.put("k", b"w", expect=seen[-1]))
                if number % 2:
                    await store.delete("k", expect=seen[-1])
                else:
                    seen.append(await store.put("k", b"x", expires_at=time.time() - 1))
                await _refused(store.put("k", b"late", expect=seen[-1]))
            assert len(set(seen)) == len(seen)

        self._run(blocking, test)

    def test_values_are_bytes(self, blocking: bool) -> None:
        """Empty values, every byte, and one megabyte come back as they were."""

        async def test(store: Store) -> None:
            values = [b"", b"\x00", bytes(range(256)), b"\xff" * 3, "é".encode("latin-1"), b"'\"\r\n%s"]
            values.append(os.urandom(self.largest_value))
            for number, value in enumerate(values):
                await store.put(f"value/{number}", value)
            for number, value in enumerate(values):
                record = await store.get(f"value/{number}")
                assert record is not None and record.value == value

        self._run(blocking, test)

    #: Bytes of the largest value that the store takes; an engine with a smaller limit says so here.
    largest_value = 1024 * 1024

    # -- expiry

    def test_an_expired_record_is_absent(self, blocking: bool) -> None:
        """Expiry is checked at use: for reads, for each expectation of a write, for deletes and
        scans."""

        async def test(store: Store) -> None:
            past = time.time() - 1
            for key in ("a", "b", "c", "d"):
                version = await store.put(f"old/{key}", b"dead", expires_at=past)
                assert await store.get(f"old/{key}") is None
                await _refused(store.put(f"old/{key}", b"no", expect=version))
                await _refused(store.delete(f"old/{key}", expect=version))
            assert [item async for item in store.scan("old/")] == []
            assert await store.delete("old/a") is False
            reborn = await store.put("old/b", b"alive", expect=ABSENT)
            assert await store.get("old/b") == (b"alive", reborn, None)
            again = await store.put("old/c", b"alive", expect=ANY)
            assert await store.get("old/c") == (b"alive", again, None)

        self._run(blocking, test)

    def test_a_record_expires_by_itself(self, blocking: bool) -> None:
        """A record is there until its time comes and then no more, without anybody cleaning."""

        async def test(store: Store) -> None:
            version = await store.put("k", b"v", expires_at=time.time() + SOON)
            assert await store.get("k") is not None
            await self._sleep(blocking, SOON + 0.1)
            assert await store.get("k") is None
            await _refused(store.put("k", b"late", expect=version))
            await store.put("k", b"new", expect=ABSENT)

        self._run(blocking, test)

    def test_an_expiry_can_be_moved_and_lifted(self, blocking: bool) -> None:
        """A write sets the expiry anew: later, or none at all."""

        async def test(store: Store) -> None:
            version = await store.put("k", b"v", expires_at=time.time() + 1)
            later = float(int(time.time()) + 2000)
            version = await store.put("k", b"v", expires_at=later, expect=version)
            record = await store.get("k")
            assert record is not None and record.expires_at == later
            await store.put("k", b"v", expect=version)
            record = await store.get("k")
            assert record is not None and record.expires_at is None

        self._run(blocking, test)

    # -- scanning and cleaning

    def test_scan_finds_exactly_the_prefix(self, blocking: bool) -> None:
        """A prefix is compared as plain text: no pattern, no folding, no neighbour."""

        async def test(store: Store) -> None:
            for key in HOSTILE_KEYS:
                await store.put(key, key.encode())
            for prefix in (
                "user/",
                "user/%",
                "user/_",
                "user/a",
                "user/\U0010ffff",
                "nobody/",
                "user",
                "",
            ):
                found = {key: record.value async for key, record in store.scan(prefix)}
                assert found == {key: key.encode() for key in HOSTILE_KEYS if key.startswith(prefix)}, (
                    prefix
                )

        self._run(blocking, test)

    def test_scan_of_many_while_writing(self, blocking: bool) -> None:
        """A scan of a thousand records meets each once, though others are written and deleted
        meanwhile."""

        async def test(store: Store) -> None:
            expected = {f"many/{number:04}" for number in range(1000)}
            for key in expected:
                await store.put(key, b"v")
            seen: list[str] = []
            async for key, record in store.scan("many/"):
                seen.append(key)
                if len(seen) % 100 == 0:
                    await store.put(f"other/{len(seen)}", b"w")
                    await store.put(key, b"changed", expect=record.version)
            assert len(seen) == len(set(seen))
            assert set(seen) == expected

        self._run(blocking, test)

    def test_purge_drops_what_expired(self, blocking: bool) -> None:
        """A purge drops what expired before the given time, counts it, and nothing else; a store whose
        engine expires by itself may have dropped some before."""

        async def test(store: Store) -> None:
            now = time.time()
            for number in range(450):
                await store.put(f"dead/{number}", b"v", expires_at=now - 10)
            await store.put("alive/never", b"v")
            await store.put("alive/later", b"v", expires_at=now + 1000)
            dropped = await store.purge(now)
            assert 0 <= dropped <= 450
            assert await store.purge(now) == 0
            assert {key async for key, _ in store.scan("alive/")} == {"alive/never", "alive/later"}
            assert [item async for item in store.scan("dead/")] == []

        self._run(blocking, test)

    # -- at once

    def test_one_writer_wins_an_absent_record(self, blocking: bool) -> None:
        """Of twelve writers that expect nothing to be there exactly one succeeds."""

        async def attempt(store: Store, number: int) -> bool:
            await store.put("race", str(number).encode(), expect=ABSENT)
            return True

        results = self._race(blocking, attempt)
        assert results.count(True) == 1

        async def left(store: Store) -> None:
            record = await store.get("race")
            assert record is not None and record.value == str(results.index(True)).encode()

        self._run(blocking, left)

    def test_one_writer_wins_a_version(self, blocking: bool) -> None:
        """Of twelve writers that expect the same version exactly one succeeds, puts and deletes
        alike."""
        version = self._run(blocking, lambda store: store.put("race", b"start"))

        async def attempt(store: Store, number: int) -> bool:
            if number % 2:
                return await store.delete("race", expect=version)
            await store.put("race", str(number).encode(), expect=version)
            return True

        assert self._race(blocking, attempt).count(True) == 1

    def test_one_writer_takes_over_an_expired_record(self, blocking: bool) -> None:
        """Of twelve writers that find an expired record exactly one takes its place: a lease has one
        holder."""
        self._run(blocking, lambda store: store.put("lease", b"dead", expires_at=time.time() - 1))

        async def attempt(store: Store, number: int) -> bool:
            await store.put("lease", b"mine", expires_at=time.time() + 100, expect=ABSENT)
            return True

        assert self._race(blocking, attempt).count(True) == 1

    def test_no_increment_is_lost(self, blocking: bool) -> None:
        """Twelve writers count by compare-and-swap, ten times each, and no step is lost."""
        self._run(blocking, lambda store: store.put("count", b"0"))

        async def attempt(store: Store, number: int) -> bool:
            for _ in range(10):
                while True:
                    record = await store.get("count")
                    assert record is not None
                    try:
                        await store.put("count", b"%d" % (int(record.value) + 1), expect=record.version)
                    except Conflict:
                        await self._sleep(blocking, 0.001 * number)
                        continue
                    break
            return True

        assert self._race(blocking, attempt).count(True) == RACERS

        async def total(store: Store) -> None:
            record = await store.get("count")
            assert record is not None and int(record.value) == 10 * RACERS

        self._run(blocking, total)

    # -- together: of a store that offers `put_all` (`oauthgate.stores.Batching`)

    def _run_together(
        self,
        blocking: bool,
        test: Callable[[Store, PutAll], Awaitable[None]],
    ) -> None:
        """Run a scenario with a store's `put_all`; a store without one has nothing to show."""

        async def scenario(store: Store) -> None:
            together = getattr(store, "put_all", None)
            if together is not None:
                await test(store, together)

        self._run(blocking, scenario)

    def test_writes_that_belong_together(self, blocking: bool) -> None:
        """All of them are made, each as `put` would have made it: its value, its expiry, and a version
        that is its own and new."""

        async def test(store: Store, together: PutAll) -> None:
            later = float(int(time.time()) + 1000)
            old = await store.put("user/a", b"old", expires_at=later)
            await store.put("k/any", b"old", expires_at=later)
            await store.put("k/dead", b"old", expires_at=time.time() - 1)
            writes = [
                Write("user/a", b"\x00new\xff", None, old),
                Write("account/a", b"", later, ABSENT),
                Write("k/any", b"new", None, ANY),
                Write("k/dead", b"new", later, ABSENT),
                Write("k/gone", b"new", time.time() - 1, ANY),
            ]
            versions = await together(writes)
            assert len(versions) == len(writes) and versions[0] != old
            for write, version in zip(writes[:4], versions, strict=False):
                assert await store.get(write.key) == (write.value, version, write.expires_at)
                # It is the version that the next writer has to expect.
                await store.put(write.key, b"newer", expect=version)
                await _refused(store.put(write.key, b"late", expect=version))
            assert await store.get("k/gone") is None
            again = await together([write._replace(expect=ANY) for write in writes[:4]])
            assert not set(again) & set(versions)
            assert await together([Write("one", b"alone", None, ABSENT)]) != []
            assert await store.get("one") is not None

        self._run_together(blocking, test)

    def test_writes_that_belong_together_are_all_made_or_none(self, blocking: bool) -> None:
        """What one of them expects does not hold, at whatever place: nothing is written of any, and no
        version changes."""

        async def test(store: Store, together: PutAll) -> None:
            versions = {name: await store.put(name, b"old") for name in ("held/1", "held/2", "gone")}
            await store.delete("gone")
            await store.put("dead", b"old", expires_at=time.time() - 1)
            good = [
                Write("held/1", b"new", None, versions["held/1"]),
                Write("fresh/1", b"new", None, ABSENT),
                Write("fresh/2", b"new", time.time() + 1000, ANY),
            ]
            bad = [
                Write("held/2", b"new", None, ABSENT),
                Write("held/2", b"new", None, versions["held/2"] - 1),
                Write("held/2", b"new", None, 2**80),  # none that anybody can have
                Write("gone", b"new", None, versions["gone"]),
                Write("dead", b"new", None, versions["held/1"]),
                Write("never", b"new", None, 1),
            ]
            for refused in bad:
                for place in range(len(good) + 1):
                    await _refused(together([*good[:place], refused, *good[place:]]))
            await _refused(together([*bad[:1], *bad[3:]]))
            for name in ("held/1", "held/2"):
                assert await store.get(name) == (b"old", versions[name], None)
            for name in ("fresh/1", "fresh/2", "gone", "dead", "never"):
                assert await store.get(name) is None
            assert len(await together(good)) == 3

        self._run_together(blocking, test)

    def test_nobody_sees_a_half_or_loses_one(self, blocking: bool) -> None:
        """Twelve writers change two records together, ten times each, in this order and the other one:
        each by version, so that no step of either is lost and both always agree."""

        async def start(store: Store, together: PutAll) -> None:
            await together([Write(name, b"0", None, ABSENT) for name in ("pair/a", "pair/b")])

        self._run_together(blocking, start)

        async def attempt(store: Store, number: int) -> bool:
            together: PutAll | None = getattr(store, "put_all", None)
            if together is None:
                return True
            names = ["pair/a", "pair/b"][:: 1 if number % 2 else -1]
            for _ in range(10):
                while True:
                    held = [await store.get(name) for name in names]
                    writes = [
                        Write(name, b"%d" % (int(record.value) + 1), None, record.version)
                        for name, record in zip(names, held, strict=True)
                        if record is not None
                    ]
                    assert len(writes) == 2
                    try:
                        await together(writes)
                    except Conflict:
                        await self._sleep(blocking, 0.001 * number)
                        continue
                    assert len({write.value for write in writes}) == 1, (
                        "one was written without the other"
                    )
                    break
            return True

        assert self._race(blocking, attempt).count(True) == RACERS

        async def total(store: Store, together: PutAll) -> None:
            for name in ("pair/a", "pair/b"):
                record = await store.get(name)
                assert record is not None and int(record.value) == 10 * RACERS

        self._run_together(blocking, total)

    def test_one_of_many_gets_all(self, blocking: bool) -> None:
        """Of twelve writers that expect nothing to be there one gets both records, and the others leave
        nothing."""

        async def attempt(store: Store, number: int) -> bool:
            together: PutAll | None = getattr(store, "put_all", None)
            if together is None:
                return number == 0
            names = ["claim/a", "claim/b"][:: 1 if number % 2 else -1]
            value = str(number).encode()
            await together(
                [
                    Write(f"own/{number}", value, None, ANY),
                    *(Write(name, value, None, ABSENT) for name in names),
                ]
            )
            return True

        results = self._race(blocking, attempt)
        assert results.count(True) == 1

        async def left(store: Store, together: PutAll) -> None:
            winner = str(results.index(True))
            assert [key async for key, _ in store.scan("own/")] == [f"own/{winner}"]
            for name in ("claim/a", "claim/b"):
                record = await store.get(name)
                assert record is not None and record.value == winner.encode()

        self._run_together(blocking, left)

    # -- opening, closing, forking

    def test_opening_and_closing_again(self, blocking: bool) -> None:
        """Opening twice is harmless, and a closed store can be opened again over the same records."""

        async def test(store: Store) -> None:
            await store.open()
            version = await store.put("k", b"v")
            await store.close()
            await store.close()
            await store.open()
            assert await store.get("k") == (b"v", version, None)
            await store.put("k", b"w", expect=version)

        self._run(blocking, test)

    def test_another_store_sees_the_same(self, blocking: bool) -> None:
        """What one store has written, another one reads at once: a strong read."""

        async def test(store: Store) -> None:
            async with self._opened(blocking) as other:
                for number in range(20):
                    version = await store.put("k", str(number).encode())
                    assert await other.get("k") == (str(number).encode(), version, None)
                    await other.delete("k", expect=version)
                    assert await store.get("k") is None

        self._run(blocking, test)

    def test_a_forked_child_uses_its_own_connection(self, blocking: bool) -> None:
        """A store that was used before a fork works in parent and child, also when both use it at
        once."""
        if not self.survives_fork or not hasattr(os, "fork"):
            return
        store = bridge(self.make_store(blocking), blocking=blocking)

        def use(work: Coroutine[Any, Any, T]) -> T:
            return step(work) if blocking else asyncio.run(work)

        async def write(prefix: str, count: int) -> None:
            for number in range(count):
                await store.put(f"{prefix}/{number}", prefix.encode())

        async def read() -> set[str]:
            return {key async for key, _ in store.scan("")}

        async def finish() -> set[str]:
            found = await read()
            await store.close()
            return found

        use(store.open())
        use(write("before", 5))
        with warnings.catch_warnings():
            # Newer Pythons warn of any fork beside threads; a server that preloads does just that.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                use(write("child", 20))
                code = 0 if use(read()) >= {"before/4", "child/19"} else 2
            finally:
                os._exit(code)
        use(write("parent", 20))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert use(finish()) >= {"before/4", "child/19", "parent/19"}


async def _refused(work: Awaitable[object]) -> None:
    """The write must be refused as a conflict."""
    try:
        await work
    except Conflict:
        return
    raise AssertionError("expected Conflict: the write was not refused")


def _won(results: list[bool | BaseException]) -> list[bool]:
    """Who succeeded; a conflict is a loser, any other exception a failure."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Conflict):
            raise result
    return [result is True for result in results]
