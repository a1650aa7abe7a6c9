"""`users`, `user`, `sessions`, `revoke`, `purge`, while the site serves."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from oauthgate.cli.output import printable
from oauthgate.testing import LocalProvider

from .command import Operator, write
from .conftest import People


def test_users(operator: Operator, people: People) -> None:
    """Every user with its links and its number of sessions, in both forms; a limit stops early."""
    ada = people.who(people.ada)["user_id"]
    listed = {each["user_id"]: each for each in operator.run("users", "--json").lines}
    assert len(listed) == 2
    assert listed[ada]["sessions"] == 2
    assert listed[ada]["links"] == [
        {"provider": name, "account_id": "1001", "label": "", "state": "active"}
        for name in ("corp", "spotify", "twitter")
    ]
    text = operator.run("users", "--config", "oauthgate.toml").out
    assert f"{ada}  " in text and "corp:1001 spotify:1001 twitter:1001" in text
    assert len(operator.run("users", "--json", "--limit", "1").lines) == 1
    assert operator.run("users", "--limit", "0").out == ""


def test_user(operator: Operator, people: People) -> None:
    """One user with everything but what is secret; one that does not exist is a problem."""
    ada = people.who(people.ada)["user_id"]
    shown = operator.run("user", ada, "--json").json
    assert shown["user_id"] == ada and len(shown["sessions"]) == 2
    corp = shown["links"][0]
    assert (corp["provider"], corp["name"], corp["email"]) == ("corp", "Ada Lovelace", "ada@example.com")
    assert set(corp) == {
        "provider", "account_id", "label", "state", "default", "name", "username", "email",
        "email_verified", "scope", "linked_at", "token_expires_at", "refreshable", "dpop",
    }  # fmt: skip
    text = operator.run("user", ada).out
    assert "Ada Lovelace" in text and "session  " in text
    assert "there is no user nobody" in operator.run("user", "nobody", status=1).err
    assert "error" in operator.run("user", "nobody", "--json", status=1).json


def test_what_a_provider_says_does_not_reach_the_terminal(
    operator: Operator, people: People, provider: LocalProvider
) -> None:
    """A name with control characters is shown escaped: nothing repaints the operator's screen."""
    grace = replace(provider.accounts["1002"], name="Grace\x1b[2J\x07\u202e")
    provider.accounts["1002"] = grace
    people.site.login(people.grace, "corp", account="grace")
    text = operator.run("user", people.who(people.grace)["user_id"]).out
    assert "Grace" in text and not {"\x1b", "\x07", "\u202e"} & set(text)
    assert printable("Grace\x1b[2J\x07\u202e 김") == "Grace\\x1b[2J\\x07\\u202e 김"


def test_ids_that_look_like_options(tmp_path: Path, config: dict[str, Any]) -> None:
    """One id in 64 begins with a dash; it is an id all the same, wherever it stands."""
    write(tmp_path / "oauthgate.toml", config)
    operator = Operator(tmp_path)
    operator.run("store", "init")
    for user in ("-N51LZ-Dq9GpuyCQ7bNbxA", "--51LZ-Dq9GpuyCQ7bNbxA"):
        for words in (["user", user], ["sessions", user], ["revoke", "--user", user]):
            assert f"there is no user {user};" in operator.run(*words, status=1).err
    for session in ("-abcdefghijk", "--bcdefghijk"):
        told = operator.run("revoke", "--session", session, status=1).err
        assert f"there is no session {session};" in told


def test_sessions_and_revoke_one(operator: Operator, people: People) -> None:
    """A session that is ended is over for the site at once; the user's others go on."""
    ada = people.who(people.ada)["user_id"]
    assert len(operator.run("sessions", "--json").lines) == 3
    held = operator.run("sessions", ada, "--json").lines
    assert [each["provider"] for each in held] == ["corp", "spotify"]
    assert held[0]["expires_at"] > time.time()
    assert held[0]["session_id"] in operator.run("sessions").out
    ended = operator.run("revoke", "--session", held[0]["session_id"], "--json")
    assert ended.json == {"sessions_ended": 1}
    assert people.who(people.ada)["user_id"] is None
    assert people.who(people.ada_again)["user_id"] == ada
    again = operator.run("revoke", "--session", held[0]["session_id"], status=1)
    assert "there is no session" in again.err


def test_revoke_user(operator: Operator, people: People) -> None:
    """A user is signed out everywhere, and keeps the links."""
    ada = people.who(people.ada)["user_id"]
    assert "2 sessions ended" in operator.run("revoke", "--user", ada).out
    assert people.who(people.ada)["user_id"] is people.who(people.ada_again)["user_id"] is None
    assert people.who(people.grace)["user_id"] is not None
    people.site.login(people.ada, "twitter")
    assert people.who(people.ada)["user_id"] == ada and len(people.who(people.ada)["links"]) == 3
    operator.run("revoke", "--user", "nobody", status=1)


def test_revoke_provider(operator: Operator, people: People, provider: LocalProvider) -> None:
    """Every link of a provider goes, its tokens are revoked there, and the account is free again."""
    before = provider.count["revoke"]
    done = operator.run("revoke", "--provider", "spotify", "--json").json
    assert done == {
        "links_removed": 2,
        "sessions_ended": 2,
        "tokens_revoked": 2,
        "revocation_failed": 0,
        "revocation_not_offered": 0,
    }
    assert provider.count["revoke"] > before
    assert people.who(people.ada)["links"] == ["corp:1001", "twitter:1001"]
    assert people.who(people.grace)["user_id"] is None
    fresh = people.site.browser()
    assert people.site.login(fresh, "spotify").status_code == 303
    assert people.who(fresh)["user_id"] != people.who(people.ada)["user_id"]


def test_revoke_provider_that_does_not_answer(
    operator: Operator, people: People, provider: LocalProvider, config: dict[str, Any], tmp_path: Path
) -> None:
    """Links go although the provider is down, and the exit status says that its tokens may still be
    good; a provider that is not configured any more can be cleared away too."""
    config["providers"]["spotify"]["revocation_endpoint"] = "http://127.0.0.1:9/revoke"
    write(tmp_path / "oauthgate.toml", config)
    done = operator.run("revoke", "--provider", "spotify", status=1)
    assert "2 could not be revoked" in done.out and "may still be good" in done.err
    del config["providers"]["twitter"]
    write(tmp_path / "oauthgate.toml", config)
    done = operator.run("revoke", "--provider", "twitter", "--json")
    assert done.json["links_removed"] == done.json["revocation_not_offered"] == 1
    assert "[providers.twitter] is not configured" in done.err


def test_hooks_are_told(operator: Operator, people: People, config: dict[str, Any]) -> None:
    """The application's own hooks hear of what the operator ended, found from where it is started."""
    module = "def told(event):\n    with open('told', 'a') as file: print(event.name, file=file)\n"
    (operator.folder / "app_hooks.py").write_text(module)
    config["hooks"] = {"logout": "app_hooks:told", "unlinked": "app_hooks:told"}
    write(operator.folder / "oauthgate.toml", config)
    operator.run("revoke", "--user", people.who(people.grace)["user_id"])
    operator.run("revoke", "--provider", "twitter")
    assert (operator.folder / "told").read_text().split() == ["logout", "unlinked"]


def test_purge(operator: Operator, people: People, tmp_path: Path) -> None:
    """What expired goes, what lives stays."""
    with sqlite3.connect(tmp_path / "gate.db") as database:
        count = "SELECT count(*) FROM oauthgate WHERE expires_at IS NOT NULL"
        (expiring,) = database.execute(count).fetchone()
        database.execute("UPDATE oauthgate SET expires_at = 1 WHERE expires_at IS NOT NULL")
    database.close()
    assert expiring
    assert operator.run("purge", "--json").json == {"dropped": expiring}
    assert operator.run("purge").out == "dropped 0 expired records\n"
    assert people.who(people.ada)["user_id"] is not None


def test_a_reader_that_has_seen_enough(operator: Operator, people: People) -> None:
    """`oauthgate users | head -1` ends quietly."""
    process = operator.start("users")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_nothing_is_made_by_looking(tmp_path: Path, config: dict[str, Any]) -> None:
    """A mistyped path is told, and leaves neither a database nor a key file behind."""
    config["oauthgate"] |= {"store": f"sqlite:///{tmp_path / 'other.db'}", "secret": []}
    write(tmp_path / "oauthgate.toml", config)
    operator = Operator(tmp_path)
    for words in (["users"], ["user", "x"], ["sessions"], ["revoke", "--user", "x"], ["purge"]):
        assert "there is no database" in operator.run(*words, status=1).err
    for words in (["keys", "check"], ["keys", "rotate"], ["store", "migrate"], ["backup", "x.db"]):
        assert "there is no database" in operator.run(*words, status=1).err
    operator.run("check", "--offline")
    assert [path.name for path in tmp_path.iterdir()] == ["oauthgate.toml"]


def test_a_lost_key_file_is_told(tmp_path: Path, config: dict[str, Any]) -> None:
    """A database without its key file: no new one is made, which would open nothing."""
    config["oauthgate"]["secret"] = []
    write(tmp_path / "oauthgate.toml", config)
    operator = Operator(tmp_path)
    operator.run("store", "init")
    (tmp_path / "gate.db.key").unlink()
    assert "there is no key file" in operator.run("users", status=1).err
    assert "there is no key file" in operator.run("check", "--offline", status=1).out
    assert not (tmp_path / "gate.db.key").exists()


def test_usage(tmp_path: Path) -> None:
    """What is not understood ends with 2, and a password on the command line is not repeated."""
    operator = Operator(tmp_path, {"hunter22-hunter22"})
    url = "redis://me:hunter22-hunter22@127.0.0.1/0"
    for words in (["nonsense"], ["users", "--limit", "many"], ["revoke"], ["users", url], ["store"]):
        operator.run(*words, status=2)
    operator.run("revoke", "--user", "a", "--session", "b", status=2)
    operator.run("check", "missing.toml", status=1)
