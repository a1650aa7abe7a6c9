"""What is SQLite's own: file modes, schema, processes, locks, full and read-only disks."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oauthgate.errors import ConfigError, Conflict, StoreError
from oauthgate.stepping import run
from oauthgate.stores import ABSENT, ANY, Write, sqlite
from oauthgate.stores.sqlite import SQLiteStore
from oauthgate.stores.sqlite_statements import PURGE_BATCH, SCHEMA_VERSION, Statement

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.db"


def store_at(path: Path, *, blocking: bool = True) -> SQLiteStore:
    return SQLiteStore(f"sqlite:///{path}", blocking=blocking)


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """A blocking store that has been opened."""
    found = store_at(path)
    run(found.open())
    yield found
    run(found.close())


def in_children(*works: Callable[[], object]) -> list[int]:
    """Run each work in a forked process, all starting at once; their exit codes (0: no exception)."""
    start_reader, start_writer = os.pipe()
    children = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(start_writer)
                os.read(start_reader, 1)
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    os.close(start_reader)
    os.close(start_writer)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def test_files_are_for_their_owner_only(path: Path) -> None:
    """Row 57: the database, its WAL and its shared memory have mode 0600 whatever the umask says."""
    before = os.umask(0)
    try:
        store = store_at(path)
        run(store.put("k", b"v"))
        names = sorted(item.name for item in path.parent.iterdir())
        assert names == ["gate.db", "gate.db-shm", "gate.db-wal"]
        for item in path.parent.iterdir():
            assert stat.S_IMODE(item.stat().st_mode) == 0o600, item
        run(store.close())
    finally:
        os.umask(before)


def test_writes_are_durable(store: SQLiteStore) -> None:
    """WAL with synchronous=FULL on every connection, the asynchronous writer's too."""
    with store._connection() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)

    async def writer() -> object:
        other = store_at(store.path, blocking=False)
        connection = await other._writer()
        rows = await connection.read(Statement("PRAGMA synchronous", ()))
        await other.close()
        return list(rows)

    assert asyncio.run(writer()) == [(2,)]


def test_a_fleeting_write_leaves_the_next_one_durable(store: SQLiteStore) -> None:
    """What expires soon does not wait for the disk; the connection is back at FULL for what follows."""
    soon = time.time() + 60
    run(store.put("lease/k", b"v", expires_at=soon))
    with pytest.raises(Conflict):
        run(store.put("lease/k", b"w", expires_at=soon, expect=ABSENT))
    with pytest.raises(StoreError):
        run(store.put("lease/x", "no bytes", expires_at=soon))  # type: ignore[arg-type] # so SQLite fails
    with store._connection() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_fleeting_write_outlives_its_process(path: Path, blocking: bool) -> None:
    """It is spared the disk's wait, not the other processes' sight: kill -9 loses nothing."""

    def work() -> None:
        store = store_at(path, blocking=blocking)
        put = store.put("lease/k", b"v", expires_at=time.time() + 60)
        if blocking:
            run(put)
        else:
            asyncio.run(put)
        os.kill(os.getpid(), 9)

    assert in_children(work) == [-9]
    found = run(store_at(path).get("lease/k"))
    assert found is not None
    assert found.value == b"v"


def test_fleeting_writes_alone_do_not_grow_the_log(path: Path) -> None:
    """In place the WAL is not moved into the file; every now and then a write goes where it is."""

    async def many() -> int:
        store = store_at(path, blocking=False)
        for number in range(20 * sqlite.CHECKPOINT_EVERY):
            await store.put(f"flow-used/{number % 7}", b"v" * 3000, expires_at=time.time() + 60)
        size = path.with_name("gate.db-wal").stat().st_size
        await store.close()
        return size

    # 1,000 pages of 4 KiB are where SQLite begins to move them.
    assert asyncio.run(many()) < 2 * (1000 + 2 * sqlite.CHECKPOINT_EVERY) * 4200


@pytest.mark.parametrize("blocking", [True, False])
def test_writes_at_once_are_answered_each_by_itself(path: Path, blocking: bool) -> None:
    """Those that come while a commit is under way share the next one: conflicts and faults do not."""

    async def put(store: SQLiteStore, number: int) -> object:
        value: object = b"v" if number != 13 else "no bytes"
        try:
            return await store.put(f"k/{number % 10}", value, expect=ABSENT)  # type: ignore[arg-type]
        except (Conflict, StoreError) as error:
            return type(error)

    async def all_at_once() -> list[object]:
        store = store_at(path, blocking=blocking)
        answers = await asyncio.gather(*(put(store, number) for number in range(30)))
        await store.close()
        return list(answers)

    answers = asyncio.run(all_at_once())
    assert [isinstance(answer, int) for answer in answers] == [True] * 10 + [False] * 20
    assert [number for number, answer in enumerate(answers) if answer is StoreError] == [13]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_caller_that_goes_away_holds_up_nobody(path: Path, blocking: bool) -> None:
    """A cancelled write is written or not; those behind it are answered."""

    async def some_leave() -> list[object]:
        store = store_at(path, blocking=blocking)
        await store.open()
        tasks = [asyncio.ensure_future(store.put(f"k/{number}", b"v")) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number in range(20):
            if number % 3:
                assert await store.get(f"k/{number}") is not None
        await store.close()
        return list(answers)

    answers = asyncio.run(some_leave())
    assert all(isinstance(answer, int) for number, answer in enumerate(answers) if number % 3)


@pytest.mark.parametrize("blocking", [True, False])
def test_writes_that_belong_together_are_all_made_or_none(path: Path, blocking: bool) -> None:
    async def work() -> None:
        store = store_at(path, blocking=blocking)
        first = Write("user/a", b"1", None, ABSENT)
        beside = [Write("sid/a", b"2", time.time() + 60, ANY), Write("flow-used/a", b"3", None, ANY)]
        versions = await store.put_all([first, *beside])
        assert [
            found.version for found in [await store.get(k) for k in ("user/a", "sid/a")] if found
        ] == (versions[:2])
        changed = [Write(write.key, b"new", None, ANY) for write in beside]
        with pytest.raises(Conflict):
            await store.put_all([*changed, first])
        with pytest.raises(Conflict):
            await store.put_all([first, *changed])
        with pytest.raises(StoreError):
            await store.put_all([*changed, Write("user/b", "no bytes", None, ANY)])  # type: ignore[arg-type]
        # At once with others, as one group among them.
        answers = await asyncio.gather(
            store.put("k", b"v"),
            store.put_all([*changed, first]),
            store.put_all([Write("k/1", b"v", None, ABSENT), Write("k/2", b"v", None, ABSENT)]),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [int, Conflict, list]
        for write in beside:
            held = await store.get(write.key)
            assert held is not None
            assert held.value == write.value
        assert await store.get("k/2") is not None
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite://", "sqlite:gate.db", "sqlite://host/gate.db", "sqlite:///"]
)
def test_a_url_without_a_path_is_refused(url: str) -> None:
    """A URL that names no file is an error of the configuration, with an example of a right one."""
    with pytest.raises(ConfigError, match=r"expected sqlite:///relative\.db"):
        SQLiteStore(url)


def test_a_newer_schema_is_refused(path: Path) -> None:
    """Row 106: a file of a newer version is neither read nor changed, and the error says what to do."""
    run(_closing(store_at(path), "k"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        connection.execute("ALTER TABLE oauthgate RENAME TO renamed")
    for blocking in (True, False):
        store = store_at(path, blocking=blocking)
        for work in (store.open(), store.get("k"), store.put("k", b"v")):
            with pytest.raises(StoreError, match="newer oauthgate"):
                run(work) if blocking else asyncio.run(work)
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()
    assert names == [("renamed",)]


async def _closing(store: SQLiteStore, key: str) -> None:
    await store.put(key, b"v")
    await store.close()


@pytest.mark.parametrize(
    "content", [b"this is not a database, but it is long enough" * 50, b"\x00" * 4096]
)
def test_a_foreign_file_is_refused(path: Path, content: bytes) -> None:
    """Row 103: what is not a database is an error, never an empty store, and stays as it is."""
    path.write_bytes(content)
    store = store_at(path)
    for work in (store.open(), store.get("k"), store.put("k", b"v"), store.delete("k"), store.purge(1)):
        with pytest.raises(StoreError, match="NOTADB"):
            run(work)
    assert path.read_bytes() == content


def test_a_damaged_page_is_an_error(path: Path) -> None:
    """Row 103: a damaged database raises, and never says that there is no record."""
    store = store_at(path)
    for number in range(200):
        run(store.put(f"user/{number}", os.urandom(500)))
    run(store.close())
    damaged = bytearray(path.read_bytes())
    for offset in range(4096, len(damaged), 64):
        damaged[offset : offset + 32] = b"\xa5" * 32
    path.write_bytes(bytes(damaged))
    again = store_at(path)
    failures = 0
    for number in range(200):
        try:
            found = run(again.get(f"user/{number}"))
        except StoreError:
            failures += 1
            continue
        assert found is None or len(found.value) == 500
    assert failures > 100
    run(again.close())


def test_eight_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Row 106: eight workers that start together make one schema, and every write of theirs is there."""
    for attempt in range(5):
        path = tmp_path / f"{attempt}.db"

        def work(number: int, path: Path = path) -> None:
            store = store_at(path, blocking=bool(number % 2))
            if number % 2:
                run(store.put(f"worker/{number}", b"v", expect=ABSENT))
                run(store.close())
            else:
                asyncio.run(_closing(store, f"worker/{number}"))

        codes = in_children(*(lambda number=number: work(number) for number in range(8)))
        assert codes == [0] * 8
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM oauthgate").fetchone() == (8,)


def test_two_processes_lose_no_increment(path: Path) -> None:
    """Two processes that count by compare-and-swap, a thousand steps each, arrive at two thousand."""
    run(_closing(store_at(path), "other"))
    steps = 1000

    def work() -> None:
        store = store_at(path)
        with store._connection() as connection:
            connection.execute("PRAGMA synchronous=OFF")  # 2,000 waits for the disk prove nothing here
        done = 0
        while done < steps:
            record = run(store.get("count"))
            value = b"%d" % (int(record.value) + 1 if record else 1)
            try:
                run(store.put("count", value, expect=record.version if record else ABSENT))
            except Conflict:
                continue
            done += 1
        run(store.close())

    assert in_children(work, work) == [0, 0]
    record = run(store_at(path).get("count"))
    assert record is not None and int(record.value) == 2 * steps


def test_readers_are_not_blocked_by_a_writer(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process writes, reads and scans go on with what was committed."""
    version = run(store.put("k", b"old"))
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE oauthgate SET value = x'00', version = version + 1")
        for reader in (store, store_at(store.path)):
            assert run(reader.get("k")) == (b"old", version, None)
            assert _scanned(reader, "k") == ["k"]
        fresh = store_at(store.path)
        with pytest.raises(StoreError, match="BUSY"):
            run(fresh.put("k", b"new"))
        assert run(fresh.get("k")) == (b"old", version, None)
        writer.execute("ROLLBACK")
        run(fresh.put("k", b"new", expect=version))
        run(fresh.close())


def test_a_locked_write_does_not_block_the_event_loop(path: Path) -> None:
    """Row 102: while a write waits for another process, the event loop serves everybody else."""

    async def scenario() -> int:
        store = store_at(path, blocking=False)
        await store.put("k", b"old")
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.put("k", b"new"))
        turns = 0
        while turns < 50:
            await asyncio.sleep(0.002)
            assert (await store.get("k")) is not None
            turns += 1
        assert not write.done()
        locker.execute("ROLLBACK")
        locker.close()
        await write
        found = await store.get("k")
        await store.close()
        assert found is not None and found.value == b"new"
        return turns

    assert asyncio.run(scenario()) == 50


def test_a_write_waits_for_a_short_lock(store: SQLiteStore) -> None:
    """A writer that meets another one waits for it instead of failing."""
    locker = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    locker.execute("BEGIN IMMEDIATE")
    started = threading.Event()

    def release() -> None:
        started.wait()
        time.sleep(0.1)
        locker.execute("COMMIT")

    thread = threading.Thread(target=release)
    thread.start()
    started.set()
    run(store.put("k", b"v"))
    thread.join()
    locker.close()


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_read_only_place_is_an_error(what: str) -> None:
    """Row 102: a directory or file that cannot be written is `StoreError`, not an empty answer."""
    place = Path(tempfile.mkdtemp())
    path = place / "gate.db"
    try:
        run(_closing(store_at(path), "k"))
        if what == "directory":
            for item in place.iterdir():
                item.unlink()
        else:
            path.chmod(0o400)
        if os.geteuid() == 0:
            for item in (place, *place.iterdir()):
                os.chown(item, NOBODY, NOBODY)
        place.chmod(0o500)

        def work() -> None:
            if os.geteuid() == 0:  # nothing is read-only for root
                os.setuid(NOBODY)
            store = store_at(path)
            for use in (store.put("k", b"v"), store.put("new", b"v", expect=ABSENT), store.delete("k")):
                try:
                    run(use)
                except StoreError as error:
                    assert not isinstance(error, Conflict)
                else:
                    raise AssertionError("the write was not refused")
            for read in (store.get("k"), store.get("other")):
                try:
                    found = run(read)
                except StoreError:
                    continue
                assert what == "file" and found is not None

        assert in_children(work) == [0]
    finally:
        place.chmod(0o700)
        shutil.rmtree(place)


def test_a_full_disk_is_an_error_and_passes(tmp_path: Path) -> None:
    """Row 102: a write for which there is no room is `StoreError`, leaves what was there, and works
    again when there is room, without a restart; on a small file system where one can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)]
    mounted = (
        shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )

    def work() -> None:
        path = place / "gate.db"
        store = store_at(path)
        version = run(store.put("keep", b"safe"))
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
        failures = 0
        for number in range(200):
            try:
                run(store.put(f"fill/{number}", os.urandom(20_000)))
            except StoreError as error:
                assert not isinstance(error, Conflict)
                failures += 1
                if failures > 3:
                    break
        assert failures > 3
        assert run(store.get("keep")) == (b"safe", version, None)
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        run(store.put("keep", b"safe again", expect=version))
        run(store.close())

    try:
        assert in_children(work) == [0]
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def test_purge_goes_in_batches(store: SQLiteStore) -> None:
    """A purge of many records is many short writes, so that no other writer waits for all of them."""
    total = 2 * PURGE_BATCH + 17
    with store._connection() as connection:
        connection.executemany(
            "INSERT INTO oauthgate VALUES (?, x'00', 1, 1.0)", ((f"dead/{n}",) for n in range(total))
        )
    statements: list[str] = []
    with store._connection() as connection:
        connection.set_trace_callback(statements.append)
    assert run(store.purge(time.time())) == total
    with store._connection() as connection:
        connection.set_trace_callback(None)
    assert len([text for text in statements if text.lstrip().startswith("DELETE")]) == 3


def test_threads_never_share_a_connection(store: SQLiteStore) -> None:
    """Eight threads on one store, reading and writing: no error, nothing lost."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(25):
                run(store.put(f"t/{number}/{step}", b"v"))
                assert run(store.get(f"t/{number}/{step}")) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(_scanned(store, "t/")) == 200


def _scanned(store: SQLiteStore, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return [key async for key, _ in store.scan(prefix)]

    return run(collect())


def test_the_path_is_absolute_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that changes its directory after start does not change its database."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("sqlite:///gate.db", blocking=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(store.put("k", b"v"))
    run(store.close())
    assert (tmp_path / "gate.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_error_names_the_file_and_no_record(path: Path) -> None:
    """A message may stand in a log: it names the file and SQLite's code, never a key or a value."""
    path.write_bytes(b"nonsense" * 1000)
    store = store_at(path)
    with pytest.raises(StoreError) as failed:
        run(store.put("user/very-secret-name", b"very-secret-value"))
    assert str(path) in str(failed.value)
    assert "very-secret" not in str(failed.value)
    good = store_at(path.with_name("good.db"))
    run(good.put("account/very-secret-name", b"v"))
    with pytest.raises(Conflict) as refused:
        run(good.put("account/very-secret-name", b"very-secret-value", expect=ABSENT))
    assert "very-secret" not in str(refused.value)
    run(good.close())


async def _many(store: SQLiteStore) -> None:
    await asyncio.gather(*(store.put(f"k/{number}", b"v") for number in range(20)))


def test_a_loop_per_request_leaves_nothing_open(path: Path) -> None:
    """A test client that makes an event loop per request works, and every loop's writer is closed."""
    store = store_at(path, blocking=False)
    before = threading.active_count()
    for _ in range(5):
        asyncio.run(_many(store))
    # A writer's thread ends a moment after its connection is closed.
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before
    asyncio.run(store.close())
