"""What happens between two writes of a rotation, and while a new secret is rolled out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oauthgate import rotation
from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import (
    AccountRecord,
    Lease,
    Link,
    Profile,
    Token,
    encode,
)
from oauthgate.rehashing import Rehasher, hashed_of
from oauthgate.resealing import reseal
from oauthgate.rotation import rotate
from oauthgate.seal import Keys, key_id_of
from oauthgate.sessions import csrf_token, csrf_valid
from oauthgate.stepping import iterate, run
from oauthgate.stores import ABSENT
from oauthgate.testing import LocalProvider
from tests.flows.steps import start
from tests.logout.test_provider_logout import claims as claims_of_logout
from tests.logout.test_provider_logout import send
from tests.support import site_under_test

from .conftest import NEW, OLD, People
from .test_keys import with_secrets


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate in the middle of a rotation, with one user whose account is claimed under the old hash."""
    document = {"oauthgate": {"store": f"sqlite:///{tmp_path / 'gate.db'}", "secret": [OLD]}}
    before = Gate(Config.load(document), BlockingIO())
    run(before.accounts.login(link("1")))
    run(before.close())
    document["oauthgate"]["secret"] = [NEW, OLD]
    found = Gate(Config.load(document), BlockingIO())
    yield found
    run(found.close())


def link(account_id: str) -> Link:
    return Link(
        provider="p",
        identity="p",
        account_id=account_id,
        profile=Profile(id=account_id),
        token=Token(access_token=f"token-{account_id}"),
    )


def claims(gate: Gate) -> dict[str, str]:
    found = {}
    for key, _ in iterate(gate.store.scan("account/")):
        stored = run(gate.vault.get(AccountRecord, key))
        assert stored is not None
        found[key] = stored[0].user_id
    return found


def test_an_unlink_during_the_move(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that is unlinked between the two writes of the move is free afterwards."""
    (user,) = iterate(gate.vault.users())
    put = gate.vault.put

    async def unlinked_after(*args: Any, **kwargs: Any) -> int:
        version = await put(*args, **kwargs)
        if args[0].startswith("account/"):
            monkeypatch.undo()
            await gate.accounts.detach(user.id, "p", "1")
        return version

    async def unlinked_before(*args: Any, **kwargs: Any) -> int:
        monkeypatch.undo()
        await gate.accounts.detach(user.id, "p", "1")
        return await put(*args, **kwargs)

    for race in (unlinked_after, unlinked_before):
        monkeypatch.setattr(gate.vault, "put", race)
        run(Rehasher(gate.vault).move(user))
        assert claims(gate) == {}, race.__name__
        # Linked anew, under the old hash as it was at first.
        digest = gate.vault.hash_keys("account", "p\x001")[0]
        session = user.sessions[0]
        record = AccountRecord(user_id=user.id, claimed_at=0)
        run(gate.vault.put(f"account/{digest}", record, expect=ABSENT))
        run(gate.accounts.attach(user.id, session.id, link("1")))
        (user,) = iterate(gate.vault.users())


def test_a_move_that_died_in_between(gate: Gate) -> None:
    """With the claim under both hashes, an unlink releases both, and another rotation removes one."""
    (user,) = iterate(gate.vault.users())
    old, new = (f"account/{each}" for each in gate.vault.hash_keys("account", "p\x001"))
    assert set(claims(gate)) == {old}
    run(gate.vault.put(new, AccountRecord(user_id=user.id, claimed_at=0), expect=ABSENT))
    assert run(Rehasher(gate.vault).move(user)) == 1
    assert claims(gate) == {new: user.id}
    run(gate.vault.put(old, AccountRecord(user_id=user.id, claimed_at=0), expect=ABSENT))
    run(gate.accounts.detach(user.id, "p", "1"))
    assert claims(gate) == {}


def test_two_first_visits_under_two_secrets(gate: Gate, tmp_path: Path) -> None:
    """While a new secret is rolled out, two processes that hash with different secrets and meet the same
    new account at the same moment make one user."""
    document = {"oauthgate": {"store": f"sqlite:///{tmp_path / 'gate.db'}", "secret": [OLD, NEW]}}
    other = Gate(Config.load(document), BlockingIO())
    put = gate.vault.put
    done: list[Any] = []

    async def meanwhile(*args: Any, **kwargs: Any) -> int:
        # The other process has looked for a claim, found none, and claims right before us.
        if args[0].startswith("account/") and not done:
            done.append(await other.accounts.login(link("2")))
        return await put(*args, **kwargs)

    gate.vault.put = meanwhile  # type: ignore[method-assign]
    _, ours, fresh = run(gate.accounts.login(link("2")))
    assert not fresh and ours.id == done[0][1].id
    assert len(list(iterate(gate.vault.users()))) == 2
    assert len(claims(gate)) == 2
    run(other.close())


def test_an_owner_is_found_at_every_moment(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every single write of a move, a look-up finds whose the account is."""
    (user,) = iterate(gate.vault.users())
    writes = 0

    def watched(write: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            writes += 1
            result = await write(*args, **kwargs)
            assert await gate.accounts.owner_of("p", "1") == user.id
            return result

        return call

    monkeypatch.setattr(gate.store, "put", watched(gate.store.put))
    monkeypatch.setattr(gate.store, "delete", watched(gate.store.delete))
    assert run(Rehasher(gate.vault).move(user)) == 1
    assert writes == 2


def test_a_refresh_under_way_keeps_its_lease(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is not touched, because its holder would take it for lost; the rotation waits."""
    old, key = Keys([OLD.encode()]), "lease/user/p/1"
    held = old.seal(key, encode(Lease(holder="me")))
    version = run(gate.store.put(key, held, expires_at=2e9))
    sleeps = 0

    async def sleep(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        stored = run(gate.store.get(key))
        assert stored is not None and (stored.value, stored.version) == (held, version)
        await gate.store.delete(key)

    monkeypatch.setattr(gate.io, "sleep", sleep)
    done = run(rotate(gate.vault, gate.io))
    assert done.settled and sleeps == 1


def test_what_never_settles_is_told(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes on with the old secret in front is noticed: the rotation ends unfinished."""
    old = Keys([OLD.encode()])

    async def write_again(*args: Any, **kwargs: Any) -> bool:
        resealed = await reseal(*args, **kwargs)
        await gate.store.put("meta/again", old.seal("meta/again", b"x"))
        return resealed

    monkeypatch.setattr(rotation, "reseal", write_again)
    assert not run(rotate(gate.vault, gate.io)).settled
    monkeypatch.undo()
    assert run(rotate(gate.vault, gate.io)).settled


def test_forms_of_before_are_good(gate: Gate) -> None:
    """The CSRF token of a page that was open when the site got its new secret is still accepted."""
    (user,) = iterate(gate.vault.users())
    old = Keys([OLD.encode()])
    token = csrf_token(old, user.sessions[0])
    assert csrf_valid(gate.keys, user.sessions[0], token)
    assert not csrf_valid(Keys([NEW.encode()]), user.sessions[0], token)
    assert user.sessions[0].key == old.key_id


def test_a_used_flow_stays_used(
    people: People, config: dict[str, Any], file: Path, provider: LocalProvider
) -> None:
    """A callback that was delivered before the site got its new secret sends its code no second time."""
    browser = people.site.browser()
    url = people.site.authorize(start(people.site, browser), "ada")
    cookies = httpx2.Cookies(browser.cookies)
    assert browser.get(url).status_code == 303
    before = provider.count["token"]
    with_secrets(config, file, NEW, OLD)
    with site_under_test("wsgi", config) as site:
        again = site.browser()
        again.cookies = cookies
        assert again.get(url).status_code == 400
        signed_in = site.browser()
        signed_in.cookies = browser.cookies
        assert signed_in.get(url).status_code == 303
    assert provider.count["token"] == before


def test_a_used_logout_token_stays_used(
    people: People, config: dict[str, Any], file: Path, provider: LocalProvider
) -> None:
    """A provider's logout token that was obeyed under the old secret is refused under the new one."""
    token = claims_of_logout(provider)
    assert send(people.site, provider, token).status_code == 200
    with_secrets(config, file, NEW, OLD)
    with site_under_test("wsgi", config) as site:
        assert send(site, provider, token).status_code == 400
        assert send(site, provider, claims_of_logout(provider)).status_code == 200


def test_look_ups_go_from_old_to_new(gate: Gate) -> None:
    """Every hash that a look-up tries goes from the old ones to the one that is written."""
    digests = gate.vault.hash_keys("flow", "state")
    assert digests[-1] == gate.vault.hash_key("flow", "state") and len(set(digests)) == 2
    (user,) = iterate(gate.vault.users())
    assert [item.kind for item in hashed_of(user)] == ["account"]
    stored = run(gate.store.get(f"user/{user.id}"))
    assert stored is not None and key_id_of(stored.value) == Keys([OLD.encode()]).key_id
    assert key_id_of(b"not sealed") is None
