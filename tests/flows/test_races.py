"""Two writers of one account at the worst moment: each account keeps exactly one owner.

The interleavings are made by hand: the store runs the second operation just before a chosen write of
the first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import oauthgate
from oauthgate.errors import GateError
from oauthgate.gate import Gate
from oauthgate.records import Link, Profile, Token
from oauthgate.stepping import run
from tests.support import make_config

from .steps import Clock, CountingStore
from .test_crash import check_store

Step = Callable[[], Awaitable[Any]]


def link(provider: str, account: str) -> Link:
    return Link(
        provider=provider,
        identity=provider,
        account_id=account,
        profile=Profile(id=account),
        token=Token(access_token=f"token-of-{account}"),
    )


class Race:
    """Accounts over a store that lets another operation in before one write."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.accounts = gate.accounts
        self.store = CountingStore(gate.vault.store)
        gate.vault.store = self.store

    def user(self, provider: str, account: str) -> tuple[str, str]:
        """A new user signed in with an account; user id and session id."""
        ticket, user, _ = run(self.accounts.login(link(provider, account)))
        assert ticket.user_id == user.id
        return user.id, user.sessions[-1].id

    def between(self, kind: str, prefix: str, step: Step) -> None:
        """Run `step` right before the next write of this kind to a key with this prefix."""

        def hook(what: str, key: str) -> None:
            if what == kind and key.startswith(prefix):
                self.store.before_write = None
                run(_quietly(step))

        self.store.before_write = hook

    def owners(self, provider: str, account: str) -> list[str]:
        """Every user whose document holds the account, and the claim's."""
        found: list[str] = []

        async def look() -> None:
            async for user in self.gate.vault.users():
                if user.link(provider, account) is not None:
                    found.append(user.id)

        run(look())
        return found


async def _quietly(step: Step) -> None:
    try:
        await step()
    except GateError:
        return


@pytest.fixture
def race(tmp_path: Any) -> Race:
    """A gate without an app; its store can be interrupted."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    return Race(oauthgate.WSGIGate(lambda environ, start: [], config).gate)


WRITES = [("put", "user/"), ("delete", "account/")]


@pytest.mark.parametrize("where", WRITES, ids=["before_the_document", "before_the_claim"])
def test_linking_again_during_an_unlink(race: Race, where: tuple[str, str]) -> None:
    """An account that its owner links again while it is unlinked keeps its claim, or is gone."""
    user, session = race.user("twitter", "1")
    run(race.accounts.attach(user, session, link("spotify", "9")))
    race.between(*where, lambda: race.accounts.attach(user, session, link("spotify", "9")))
    run(race.accounts.detach(user, "spotify", "9"))
    check_store(race.gate)
    assert race.owners("spotify", "9") in ([user], [])
    other, _ = race.user("spotify", "9")
    assert (other == user) == (race.owners("spotify", "9") == [user])
    check_store(race.gate)


@pytest.mark.parametrize("where", WRITES, ids=["before_the_document", "before_the_claim"])
@pytest.mark.parametrize("how", ["login", "attach"])
def test_another_user_takes_it_during_an_unlink(
    race: Race, clock: Clock, where: tuple[str, str], how: str
) -> None:
    """An account that somebody else signs in with while it is unlinked ends with exactly one owner."""
    user, session = race.user("twitter", "1")
    second, second_session = race.user("twitter", "2")
    run(race.accounts.attach(user, session, link("spotify", "9")))
    clock.advance(120, race.gate)

    async def take() -> None:
        if how == "login":
            await race.accounts.login(link("spotify", "9"))
        else:
            await race.accounts.attach(second, second_session, link("spotify", "9"))

    race.between(*where, take)
    run(race.accounts.detach(user, "spotify", "9"))
    check_store(race.gate)
    assert len(race.owners("spotify", "9")) <= 1


def test_unlinking_during_a_link(race: Race) -> None:
    """The other way round: an unlink that runs whole inside the link leaves no link without its
    claim."""
    user, session = race.user("twitter", "1")
    run(race.accounts.attach(user, session, link("spotify", "9")))
    race.between("put", "user/", lambda: race.accounts.detach(user, "spotify", "9"))
    run(race.accounts.attach(user, session, link("spotify", "9")))
    check_store(race.gate)
    assert race.owners("spotify", "9") == [user]
    assert race.user("spotify", "9")[0] == user


@pytest.mark.parametrize("where", [("put", "account/"), ("put", "user/")])
def test_two_users_link_one_account_at_once(race: Race, where: tuple[str, str]) -> None:
    """Of two users who link the same account at once, one gets it and the other a 409."""
    first, first_session = race.user("twitter", "1")
    second, second_session = race.user("twitter", "2")
    race.between(*where, lambda: race.accounts.attach(second, second_session, link("spotify", "9")))
    try:
        run(race.accounts.attach(first, first_session, link("spotify", "9")))
    except GateError as error:
        assert error.status == 409
    check_store(race.gate)
    assert len(race.owners("spotify", "9")) == 1


@pytest.mark.parametrize("where", [("put", "account/"), ("put", "user/")])
def test_two_first_sign_ins_at_once(race: Race, where: tuple[str, str]) -> None:
    """Two browsers that sign in with one new account at once become one user with two sessions."""
    race.between(*where, lambda: race.accounts.login(link("spotify", "9")))
    _, user, _ = run(race.accounts.login(link("spotify", "9")))
    check_store(race.gate)
    assert race.owners("spotify", "9") == [user.id]
    assert len(user.sessions) == 2


def test_one_account_through_two_tables(race: Race) -> None:
    """Unlinking one of two tables that mean the same account leaves the other its claim."""
    user, session = race.user("twitter", "1")
    one, other = link("spotify", "9"), link("corp", "9")
    import msgspec

    other = msgspec.structs.replace(other, identity=one.identity)
    run(race.accounts.attach(user, session, one))
    run(race.accounts.attach(user, session, other))
    run(race.accounts.detach(user, "spotify", "9"))
    check_store(race.gate)
    assert race.owners("corp", "9") == [user]
