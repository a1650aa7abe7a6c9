"""`store init`, `store migrate`, `store copy`, `backup`: a site moves between stores and is kept."""

from __future__ import annotations

import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from oauthgate.config import Config
from oauthgate.errors import StoreError
from oauthgate.stepping import iterate, run
from oauthgate.stores import Record, make_store, sqlite_backup
from tests.servers.dynamodb import DynamoDB, dynamodb
from tests.servers.postgres import PASSWORD, Postgres, postgres
from tests.servers.redis import redis_server
from tests.stores import dynamodb_places
from tests.stores.conftest import entered
from tests.support import site_under_test

from .command import Operator, write
from .conftest import OLD, People, users


@pytest.fixture(scope="module")
def pg() -> Iterator[Postgres]:
    with ExitStack() as stack:
        yield entered(stack, postgres())


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis with a password."""
    with ExitStack() as stack:
        password = "redis-password-%41"
        server = entered(stack, redis_server({"requirepass": password}, password=password))
        yield f"redis://:{password.replace('%', '%25')}@127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def tables() -> Iterator[DynamoDB]:
    with ExitStack() as stack:
        yield entered(stack, dynamodb())


def records(url: str) -> dict[str, tuple[bytes, float | None]]:
    """What a store holds, but for the copy's own mark."""
    store = make_store(url, blocking=True)
    run(store.open())
    found: dict[str, Record] = dict(iterate(store.scan("")))
    run(store.close())
    return {
        key: (record.value, record.expires_at)
        for key, record in found.items()
        if not key.startswith("meta/store-copy")
    }


def test_init_and_migrate(tmp_path: Path, config: dict[str, Any]) -> None:
    """`init` makes what a site makes at its first use; `migrate` refuses what is not there."""
    operator = Operator(tmp_path, {OLD})
    write(tmp_path / "oauthgate.toml", config)
    operator.run("store", "migrate", status=1)
    assert operator.run("store", "init", "--json").json["ready"] is True
    assert stat.S_IMODE((tmp_path / "gate.db").stat().st_mode) == 0o600
    for command in ("init", "migrate"):
        assert "ready" in operator.run("store", command).out
    config["oauthgate"]["store"] = "memory:"
    write(tmp_path / "oauthgate.toml", config)
    assert "memory:" in operator.run("store", "init", status=1).err
    assert "memory:" in operator.run("users", status=1).err


def test_copy_through_every_engine(
    operator: Operator,
    people: People,
    config: dict[str, Any],
    file: Path,
    tmp_path: Path,
    pg: Postgres,
    redis_url: str,
    tables: DynamoDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite → Redis → PostgreSQL → DynamoDB → SQLite: the same records and expiry, no password
    shown, and the visitors do not notice."""
    ada = people.who(people.ada)["user_id"]
    operator.secrets |= {PASSWORD, "redis-password-%41", "redis-password-%2541"}
    places = {
        "redis": f"{redis_url}?prefix={secrets.token_hex(4)}:",
        "postgres": pg.url(f"schema=s{secrets.token_hex(6)}"),
        "dynamodb": dynamodb_places.address(tables.endpoint, "moved"),
        "sqlite": f"sqlite:///{tmp_path / 'moved.db'}",
    }
    dynamodb_places.credentials(monkeypatch)
    before = records(config["oauthgate"]["store"])
    source = "oauthgate.toml"
    for name, url in places.items():
        config["oauthgate"]["store"] = url
        write(tmp_path / f"{name}.toml", config)
        if name == "dynamodb":  # whose table is made by this command only
            assert (
                "the table is not there"
                in operator.run("store", "copy", source, f"{name}.toml", status=1).err
            )
            for _ in range(2):
                assert "ready" in operator.run("store", "init", "--config", f"{name}.toml").out
        done = operator.run("store", "copy", source, f"{name}.toml", "--json").json
        assert done["identical"] and done["records"] == done["written"] == len(before), name
        assert records(url) == before, name
        again = operator.run("store", "copy", source, f"{name}.toml").out
        assert "0 written, 0 removed" in again and "the same records" in again
        operator.run("users", "--config", f"{name}.toml")
        operator.run("check", f"{name}.toml", "--offline")
        source = f"{name}.toml"
    with site_under_test("wsgi", config) as site:
        browser = site.browser()
        browser.cookies = people.ada.cookies
        assert browser.get("/who").json()["user_id"] == ada
        assert browser.get("/call/spotify/me").json()["username"] == "ada"
    for name in ("redis", "postgres", "dynamodb"):
        refused = operator.run("backup", "x.db", "--config", f"{name}.toml", status=1).err
        assert {"redis": "redis-cli --rdb", "postgres": "pg_dump", "dynamodb": "create-backup"}[
            name
        ] in refused


def test_a_second_run_carries_over_what_changed(
    operator: Operator, people: People, config: dict[str, Any], tmp_path: Path
) -> None:
    """New, changed and removed records reach the copy, and nothing else is written."""
    target = f"sqlite:///{tmp_path / 'target.db'}"
    operator.run("store", "copy", "oauthgate.toml", target)
    people.site.post(people.ada, "/twitter/unlink")
    people.site.login(people.site.browser(), "corp", account="grace")
    done = operator.run("store", "copy", "oauthgate.toml", target, "--json").json
    assert done["identical"] and done["removed"] == 1 and 1 < done["written"] < done["records"]
    assert records(target) == records(config["oauthgate"]["store"])


def test_what_is_not_copied_over(
    operator: Operator, people: People, config: dict[str, Any], tmp_path: Path
) -> None:
    """A store that holds something else, that is in use, that is the source itself, or whose secrets
    do not fit is never written to."""
    own, url = config["oauthgate"]["store"], f"sqlite:///{tmp_path / 'target.db'}"
    for same in ("oauthgate.toml", own, own.replace("gate.db", "../" + tmp_path.name + "/gate.db")):
        assert "the same store" in operator.run("store", "copy", own, same, status=1).err
    (tmp_path / "alias.db").symlink_to(tmp_path / "gate.db")
    alias = f"sqlite:///{tmp_path / 'alias.db'}"
    assert "the same store" in operator.run("store", "copy", own, alias, status=1).err
    (tmp_path / "alias.db").unlink()
    before = records(own)
    # The other way round: the live site is no copy of its copy.
    operator.run("store", "copy", own, url)
    assert "no copy of this source" in operator.run("store", "copy", url, own, status=1).err
    assert records(own) == before
    # A site began to use the copy.
    store = make_store(url, blocking=True)
    run(store.put("user/new", b"what a site wrote"))
    run(store.close())
    assert "a site is using it" in operator.run("store", "copy", own, url, status=1).err
    assert "user/new" in records(url)
    # From elsewhere.
    third = f"sqlite:///{tmp_path / 'third.db'}"
    operator.run("store", "copy", url, third)
    assert "another source" in operator.run("store", "copy", own, third, status=1).err
    # Secrets that open nothing of it.
    config["oauthgate"] |= {"store": f"sqlite:///{tmp_path / 'other.db'}", "secret": ["x" * 40]}
    write(tmp_path / "other.toml", config)
    refused = operator.run("store", "copy", "oauthgate.toml", "other.toml", status=1).err
    assert "do not open" in refused
    config["oauthgate"]["secret"] = []
    write(tmp_path / "other.toml", config)
    operator.run("store", "copy", "oauthgate.toml", "other.toml", status=1)
    assert not (tmp_path / "other.db").exists()
    for wrong in (
        "memory:",
        "nonsense",
        "nonsense://x",
        "missing.toml",
        "sqlite:///none.db",
        "env:NONE",
    ):
        operator.run("store", "copy", wrong, url, status=1)
    assert not (tmp_path / "none.db").exists()
    operator.run("store", "copy", "oauthgate.toml", "memory:", status=1)


def test_references_for_stores(operator: Operator, people: People, tmp_path: Path) -> None:
    """A URL with a password need not stand on the command line."""
    url = f"sqlite:///{tmp_path / 'target.db'}"
    operator.run("store", "copy", "oauthgate.toml", "env:TARGET", env={"TARGET": url})
    assert len(records(url)) >= 7


def test_a_key_file_goes_along(tmp_path: Path, config: dict[str, Any]) -> None:
    """A site without a secret is told that its key file must become one."""
    config["oauthgate"]["secret"] = []
    file = write(tmp_path / "oauthgate.toml", config)
    with site_under_test("wsgi", config) as site:
        site.login(site.browser(), "spotify")
    key = tmp_path / "gate.db.key"
    operator = Operator(tmp_path, {key.read_text()})
    url = f"sqlite:///{tmp_path / 'target.db'}"
    said = operator.run("store", "copy", "oauthgate.toml", url).out
    assert f'secret = ["file:{key}"]' in said
    config["oauthgate"] |= {"store": url, "secret": [f"file:{key}"]}
    assert users(write(tmp_path / "moved.toml", config)) == users(file) != []
    assert str(key) in operator.run("backup", "backup.db").out


def test_backup(
    operator: Operator, people: People, config: dict[str, Any], file: Path, tmp_path: Path
) -> None:
    """The copy is whole, private, opens as the original does, and writes over nothing."""
    done = operator.run("backup", "backup.db", "--json").json
    copy = tmp_path / "backup.db"
    assert done["records"] == len(records(config["oauthgate"]["store"]))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 and done["bytes"] == copy.stat().st_size
    held = copy.read_bytes()
    assert "is there already" in operator.run("backup", "backup.db", status=1).err
    assert copy.read_bytes() == held
    assert "cannot be written" in operator.run("backup", "no/such/folder.db", status=1).err
    config["oauthgate"]["store"] = f"sqlite:///{copy}"
    assert users(write(tmp_path / "restored.toml", config)) == users(file)
    assert Config.load(tmp_path / "restored.toml").store.endswith("backup.db")


def test_backup_of_a_damaged_file(operator: Operator, people: People, tmp_path: Path) -> None:
    """A damaged database gives no backup that looks like one."""
    damaged = tmp_path / "damaged.db"
    sqlite_backup.backup(tmp_path / "gate.db", damaged)
    with damaged.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StoreError):
        sqlite_backup.backup(damaged, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy.db*"))


def test_vacuum(tmp_path: Path) -> None:
    """What was deleted is in the file until it is cleaned, and nowhere in it afterwards."""
    path, traces = tmp_path / "gate.db", b"traces of what was deleted"
    store = make_store(f"sqlite:///{path}", blocking=True)
    run(store.put("kept", b"kept"))
    run(store.put("gone", traces * 1000))
    run(store.close())  # what is only in the write-ahead log goes with it; this is in the file
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA secure_delete=OFF")  # some builds of SQLite have it on by themselves
        other.execute("DELETE FROM oauthgate WHERE key = 'gone'")

    def held() -> bytes:
        return b"".join(each.read_bytes() for each in tmp_path.glob("gate.db*"))

    assert traces in held()
    assert sqlite_backup.vacuum(path) is True
    assert traces not in held()
    stored = run(store.get("kept"))
    assert stored is not None and stored.value == b"kept"
    run(store.close())


def test_vacuum_gives_way(
    operator: Operator, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody holds the file, the clean-up says so instead of failing the site."""
    path = tmp_path / "gate.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(sqlite_backup, "BUSY", 0.05)
    monkeypatch.setattr(sqlite_backup, "CHECKPOINT_WAIT", 1)
    assert sqlite_backup.vacuum(path) is False
    holder.execute("ROLLBACK")
    holder.execute("BEGIN")
    holder.execute("SELECT * FROM oauthgate").fetchone()
    assert sqlite_backup.vacuum(path) is False, "a reader of the old pages was overlooked"
    holder.execute("ROLLBACK")
    assert sqlite_backup.vacuum(path) is True
    holder.close()
