"""`keys rotate` and `keys check`: a site moves to a new secret and loses nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oauthgate.config import Config
from oauthgate.errors import SealError
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import (
    ProviderSession,
    Session,
    User,
)
from oauthgate.seal import Keys
from oauthgate.stepping import iterate, run
from oauthgate.stores import ABSENT
from tests.support import site_under_test

from .command import Operator, write
from .conftest import NEW, OLD, People, users


def with_secrets(config: dict[str, Any], file: Path, *secrets: str) -> None:
    config["oauthgate"]["secret"] = list(secrets)
    write(file, config)


def raw(folder: Path) -> bytes:
    """Everything that the files of the database hold, free pages and write-ahead log too."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("gate.db*")))


def test_one_secret(operator: Operator, people: People) -> None:
    """With one secret there is nothing to move, and everything is under it."""
    assert "only one is configured" in operator.run("keys", "rotate", status=1).err
    (secret,) = operator.run("keys", "check", "--json").json["secrets"]
    assert secret["position"] == 1 and not secret["removable"] and not secret["hashes"]
    assert secret["records"]["user"] == 2 and secret["records"]["account"] == 4
    assert secret["sessions"] == 3


def test_rotate(
    operator: Operator, people: People, config: dict[str, Any], file: Path, tmp_path: Path
) -> None:
    """After a rotation the old secret opens nothing, sessions go on until it is removed, and then
    everybody who signs in again is the same user."""
    ada, grace = (people.who(each)["user_id"] for each in (people.ada, people.grace))
    cookies = people.ada.cookies
    with_secrets(config, file, NEW, OLD)
    before = operator.run("keys", "check", "--json").json["secrets"]
    assert [each["removable"] for each in before] == [False, False]
    assert before[1]["hashes"]["account"] == 4 and before[1]["sessions"] == 3
    assert before[0]["records"] == {}
    assert "keep it" in operator.run("keys", "check").out
    with site_under_test("wsgi", config) as site:
        browser = site.browser()
        browser.cookies = cookies
        assert browser.get("/who").json()["user_id"] == ada
        done = operator.run("keys", "rotate", "--json").json
        assert done["finished"] and done["vacuumed"] and not done["unreadable"]
        assert done["rehashed"] >= 4 and done["resealed"] >= 7
        new, old = done["secrets"]
        assert old["removable"] and old["records"] == old["hashes"] == {}
        assert old["sessions"] == 3 and old["last_session_ends"]
        assert new["records"]["user"] == 2
        # The session of before is good, its page's forms too, and new ones are under the new secret.
        assert browser.get("/who").json()["user_id"] == ada
        fresh = site.browser()
        site.login(fresh, "spotify")
        assert fresh.get("/who").json()["user_id"] == ada
    assert "3 sessions would be signed out" in operator.run("keys", "rotate").out
    opens_with_new_only(tmp_path)
    old_id = b"\x01" + Keys([OLD.encode()]).key_id
    assert old_id not in raw(tmp_path), "what the old secret sealed is still in the file"
    with_secrets(config, file, NEW)
    with site_under_test("wsgi", config) as site:
        browser.cookies = cookies
        lost = site.browser()
        lost.cookies = cookies
        assert lost.get("/who").json()["user_id"] is None
        assert fresh.cookies and len(users(file)) == 2
        for name in ("corp", "spotify", "twitter"):
            again = site.browser()
            site.login(again, name)
            assert again.get("/who").json()["user_id"] == ada
        again = site.browser()
        site.login(again, "spotify", account="grace")
        assert again.get("/who").json()["user_id"] == grace
        kept = site.browser()
        kept.cookies = fresh.cookies
        assert kept.get("/who").json()["user_id"] == ada, "a session under the new secret ended"


def opens_with_new_only(folder: Path) -> None:
    gate = Gate(
        Config.load({"oauthgate": {"store": f"sqlite:///{folder / 'gate.db'}", "secret": [NEW]}}),
        BlockingIO(),
    )
    old = Keys([OLD.encode()])
    count = 0
    for key, record in iterate(gate.store.scan("")):
        gate.keys.open(key, record.value)
        with pytest.raises(SealError):
            old.open(key, record.value)
        count += 1
    run(gate.close())
    assert count >= 7


def test_the_provider_ends_a_session_after_a_rotation(
    operator: Operator, people: People, config: dict[str, Any], file: Path
) -> None:
    """The mark by which a provider's session id is found moves too, with its expiry."""
    gate = Gate(Config.load(file), BlockingIO())
    session = Session(
        id="s", secret_hash=b"h", created=2e9, last_seen=2e9, provider="corp", sid="provider-session"
    )
    someone = User(id="someone", created=0, sessions=[session])
    run(gate.vault.put("user/someone", someone, expect=ABSENT))
    digest = gate.vault.hash_key("sid", "corp\x00provider-session")
    mark = ProviderSession(user_id="someone")
    run(gate.vault.put(f"sid/{digest}", mark, expect=ABSENT, expires_at=3e9))
    run(gate.close())
    with_secrets(config, file, NEW, OLD)
    operator.run("keys", "rotate")
    with_secrets(config, file, NEW)
    gate = Gate(Config.load(file), BlockingIO())
    key = "sid/" + gate.vault.hash_key("sid", "corp\x00provider-session")
    found = run(gate.store.get(key))
    assert found is not None and found.expires_at == 3e9
    run(gate.close())


def test_a_secret_that_is_missing(
    operator: Operator, people: People, config: dict[str, Any], file: Path
) -> None:
    """What no configured secret opens is counted and named by its key id, and left as it is."""
    gate = Gate(Config.load(file), BlockingIO())
    other = Keys([b"another-secret-" + b"x" * 32])
    run(gate.store.put("user/lost", other.seal("user/lost", b"x")))
    damaged = gate.keys.seal("user/elsewhere", b"x")
    run(gate.store.put("user/damaged", damaged))
    checked = operator.run("keys", "check", "--json", status=1).json
    assert checked["unknown_keys"] == {other.key_id.hex(): 1} and checked["damaged"] == 1
    listed = operator.run("users", "--json", status=1)
    assert len(listed.lines) == 2 and "user/lost cannot be read" in listed.err
    with_secrets(config, file, NEW, OLD)
    done = operator.run("keys", "rotate", "--json", status=1)
    assert done.json["unreadable"] == 2 and not done.json["finished"]
    assert "not configured" in done.err
    stored = run(gate.store.get("user/damaged"))
    assert stored is not None and stored.value == damaged
    run(gate.close())


def test_a_wrong_secret_changes_nothing(
    operator: Operator, people: People, config: dict[str, Any], file: Path
) -> None:
    """A list of secrets that does not open the store is refused before anything is moved."""
    with_secrets(config, file, NEW, "another-secret-" + "x" * 32)
    assert "put the secret" in operator.run("keys", "rotate", status=1).err
    assert operator.run("check", "--offline", "--json", status=1).json["ok"] is False
    with_secrets(config, file, OLD)
    assert people.who(people.ada)["user_id"] is not None
    operator.run("keys", "check")
