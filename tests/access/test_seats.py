"""`max_users`: never one too many, nobody left half made, and a place again for who comes after."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import oauthgate
from oauthgate import access_seats
from oauthgate.errors import GateError, StoreError
from oauthgate.gate import Gate
from oauthgate.records import Seats
from oauthgate.stepping import run
from oauthgate.stores import ABSENT
from oauthgate.testing import LocalProvider
from tests.flows.steps import Clock, CountingStore, counting
from tests.flows.test_crash import check_store
from tests.servers.dynamodb import DynamoDB, dynamodb
from tests.servers.postgres import Postgres, postgres
from tests.servers.redis import RedisServer, redis_server
from tests.stores import dynamodb_places, redis_places
from tests.stores.conftest import entered
from tests.support import PAGE, SiteUnderTest, make_config

from .links import link

ROOT = Path(__file__).parents[2]
PROCESSES, PEOPLE = 5, 50


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make_gate(folder: Path, limit: int | None = 2) -> Gate:
    config = make_config("http://127.0.0.1:9", folder)
    if limit is not None:
        config["access"] = {"max_users": limit}
    return oauthgate.WSGIGate(lambda environ, start: [], config).gate


def sign_in(gate: Gate, account: str, provider: str = "twitter") -> str:
    """The user's id, or the error's code."""
    try:
        _, user, _ = run(gate.accounts.login(link(provider, account)))
    except GateError as error:
        return error.code
    return user.id


def users(gate: Gate) -> set[str]:
    async def look() -> set[str]:
        return {user.id async for user in gate.vault.users()}

    return run(look())


def seats(gate: Gate) -> dict[str, int]:
    found = run(gate.vault.get(Seats, access_seats.KEY))
    assert found is not None
    return found[0].seats


def claims(gate: Gate) -> int:
    async def count() -> int:
        return len([key async for key, _ in gate.store.scan("account/")])

    return run(count())


def test_the_last_place(tmp_path: Path) -> None:
    """The third of two is refused, and leaves nothing behind; who has an account still gets in."""
    gate = make_gate(tmp_path)
    first, second = sign_in(gate, "1"), sign_in(gate, "2")
    assert sign_in(gate, "3") == "too_many_users"
    assert users(gate) == {first, second} == set(seats(gate))
    assert claims(gate) == 2
    assert (sign_in(gate, "1"), sign_in(gate, "2")) == (first, second)
    check_store(gate)


def test_who_was_there_before(tmp_path: Path) -> None:
    """Users from before there was a limit have a seat, more of them than there are seats too."""
    before = make_gate(tmp_path, None)
    there = {sign_in(before, str(number)) for number in range(3)}
    gate = make_gate(tmp_path)
    assert sign_in(gate, "9") == "too_many_users"
    assert users(gate) == there
    assert sign_in(gate, "1") in there


def test_users_made_while_there_was_no_limit(tmp_path: Path) -> None:
    """A limit that is taken away and set again counts who came meanwhile."""
    first = make_gate(tmp_path)
    sign_in(first, "1")
    between = make_gate(tmp_path, None)
    for number in range(2, 5):
        sign_in(between, str(number))
    again = make_gate(tmp_path, 4)
    assert sign_in(again, "9") == "too_many_users"
    assert len(seats(again)) == 4


def test_nobody_new(tmp_path: Path) -> None:
    """A limit of 0 lets nobody new in."""
    assert sign_in(make_gate(tmp_path, 0), "1") == "too_many_users"


def test_a_place_that_becomes_free(tmp_path: Path, clock: Clock) -> None:
    """Whoever has unlinked everything and is signed out has no place any more; till then he has."""
    gate = make_gate(tmp_path)
    gone, stays = sign_in(gate, "1"), sign_in(gate, "2")
    clock.advance(2 * access_seats.GRACE, gate)
    run(gate.accounts.detach(gone, "twitter", "1"))
    assert sign_in(gate, "3") == "too_many_users"  # still signed in, so he may link again
    run(gate.accounts.end_sessions(gone, lambda held: True))
    _look_at_once(gate)
    third = sign_in(gate, "3")
    assert set(seats(gate)) == {stays, third}
    assert sign_in(gate, "1") == "too_many_users"


def _look_at_once(gate: Gate) -> None:
    """Looking for free seats takes a twentieth of a process's time at most; a test does not wait."""
    admission = gate.accounts._admission
    assert admission is not None
    admission._look_again = 0.0


def test_a_record_that_was_deleted(tmp_path: Path, clock: Clock) -> None:
    """A user whose document is gone leaves his seat."""
    gate = make_gate(tmp_path)
    gone, _ = sign_in(gate, "1"), sign_in(gate, "2")
    run(gate.vault.delete(f"user/{gone}"))
    assert sign_in(gate, "3") == "too_many_users"  # it may be a user who is being made
    clock.advance(access_seats.GRACE + 1, gate)
    _look_at_once(gate)
    assert len(sign_in(gate, "3")) == 22


def test_looking_for_free_seats_is_bounded(tmp_path: Path, clock: Clock) -> None:
    """A flood of refused people does not make the store read all users each time."""
    gate = make_gate(tmp_path, 20)
    for number in range(20):
        sign_in(gate, str(number))
    clock.advance(access_seats.GRACE + 1, gate)
    store = counting(gate)
    admission = gate.accounts._admission
    assert admission is not None
    assert sign_in(gate, "99") == "too_many_users"
    looked = store.count["get"]
    admission._look_again = float("inf")
    for number in range(10):
        assert sign_in(gate, f"x{number}") == "too_many_users"
    assert looked >= 20
    assert store.count["get"] - looked < 10 * 10
    assert store.count["scan"] == 0


class Interrupted(CountingStore):
    """Loses the connection at the first write to a key with a prefix."""

    at = ""

    async def put(self, key: str, value: bytes, **more: Any) -> int:
        if self.at and key.startswith(self.at):
            self.at = ""
            raise StoreError("lost")
        return await super().put(key, value, **more)


@pytest.mark.parametrize("at", ["account/", "access/", "user/"])
def test_a_store_that_fails_between(tmp_path: Path, clock: Clock, at: str) -> None:
    """Whatever write fails, nobody gets in, nobody is half made, and the next one finds the place."""
    gate = make_gate(tmp_path)
    sign_in(gate, "1")
    store = Interrupted(gate.vault.store)
    gate.vault.store = store
    store.at = at
    assert sign_in(gate, "2") == "store_unavailable"
    assert store.at == ""
    assert len(users(gate)) == 1
    assert claims(gate) == 1
    clock.advance(access_seats.GRACE + 1, gate)
    _look_at_once(gate)
    assert len(sign_in(gate, "2")) == 22
    assert len(users(gate)) == 2
    assert sign_in(gate, "3") == "too_many_users"
    check_store(gate)


def test_a_seat_that_cannot_be_read(tmp_path: Path) -> None:
    """A record that does not open lets nobody new in, and keeps nobody out who has an account."""
    gate = make_gate(tmp_path)
    first = sign_in(gate, "1")
    run(gate.store.put(access_seats.KEY, b"damaged"))
    assert sign_in(gate, "2") == "record_unreadable"
    assert sign_in(gate, "1") == first
    assert users(gate) == {first}


def test_a_claim_left_by_a_crash(tmp_path: Path) -> None:
    """A claim without its user, as a crash leaves it, does not get its owner past the limit."""
    from oauthgate.records import AccountRecord
    from oauthgate.sessions import new_user_id

    gate = make_gate(tmp_path)
    sign_in(gate, "1")
    sign_in(gate, "2")
    key = gate.accounts._account_key(link("twitter", "3"))
    record = AccountRecord(user_id=new_user_id(), claimed_at=0.0)
    run(gate.vault.put(key, record, expect=ABSENT))
    assert sign_in(gate, "3") == "too_many_users"
    assert len(users(gate)) == 2


def test_the_same_person_twice_at_once(tmp_path: Path) -> None:
    """Two first sign-ins of one account at the same moment take one seat."""
    gate = make_gate(tmp_path)
    store = counting(gate)

    def second(what: str, key: str) -> None:
        if key.startswith("user/"):
            store.before_write = None
            sign_in(gate, "1")

    store.before_write = second
    first = sign_in(gate, "1")
    assert users(gate) == {first} == set(seats(gate))


def test_a_hook_that_refuses(tmp_path: Path) -> None:
    """Whom the application refuses takes no seat; and it is not asked about who finds no room."""
    asked: list[str] = []

    def login(event: oauthgate.Event) -> None:
        asked.append(event.user_id)
        if len(asked) == 2:
            raise oauthgate.Refused("not you")

    config = make_config("http://127.0.0.1:9", tmp_path)
    config["access"] = {"max_users": 2}
    gate = oauthgate.WSGIGate(lambda environ, start: [], config, hooks={"login": login}).gate
    assert len(sign_in(gate, "1")) == 22
    assert sign_in(gate, "2") == "refused"
    assert len(seats(gate)) == 1
    assert len(sign_in(gate, "3")) == 22
    assert sign_in(gate, "4") == "too_many_users"
    assert len(asked) == 3


def test_costs(tmp_path: Path) -> None:
    """A limit costs a sign-in that makes nobody nothing, and no limit costs nothing at all."""
    counts = []
    for limit in (None, 5):
        folder = tmp_path / str(limit)
        folder.mkdir()
        gate = make_gate(folder, limit)
        sign_in(gate, "1")
        store = counting(gate)
        sign_in(gate, "1")
        counts.append(dict(store.count))
    assert counts[0] == counts[1]
    gate = make_gate(tmp_path, None)
    sign_in(gate, "1")
    assert run(gate.vault.get(Seats, access_seats.KEY)) is None


def test_over_http(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], provider: LocalProvider
) -> None:
    """The page and the JSON that say that there is no place, on both adapters; nobody is signed in."""
    config["access"] = {"max_users": 1}
    site = make_site()
    assert site.login(site.browser(), "spotify", "ada").status_code == 303
    for headers, page in ((PAGE, True), ({"accept": "application/json"}, False)):
        late = site.browser()
        started = late.get("/_oauth/spotify/login")
        answer = late.get(site.authorize(started.headers["location"], "grace"), headers=headers)
        assert answer.status_code == 403
        if page:
            assert "No places left" in answer.text and "too_many_users" in answer.text
        else:
            assert answer.json()["error"] == "too_many_users"
        assert late.get("/who").json()["user_id"] is None
        assert "oauthgate" not in late.cookies
    assert site.login(site.browser(), "spotify", "ada").status_code == 303


# -- fifty at once, over several processes


@pytest.fixture(params=["sqlite", "redis", "postgres", "dynamodb"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An empty store of each kind."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'gate.db'}"
        elif request.param == "redis":
            redis: RedisServer = entered(stack, redis_server())
            yield redis_places.own(f"redis://127.0.0.1:{redis.port}")
        elif request.param == "postgres":
            pg: Postgres = entered(stack, postgres())
            yield pg.url()
        else:
            dynamodb_places.credentials(monkeypatch)
            tables: DynamoDB = entered(stack, dynamodb())
            yield dynamodb_places.own(tables.endpoint)


@pytest.mark.parametrize("mode", ["asyncio", "threads"])
def test_fifty_at_once(place: str, mode: str, tmp_path: Path) -> None:
    """50 people who were never there sign in at the same moment, in 5 processes: 25 get in, 25 are told
    that there is no place, and nothing else."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    config["oauthgate"] |= {"store": place, "secret": ["s" * 40]}
    config["access"] = {"max_users": 25}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    each = PEOPLE // PROCESSES
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.access.worker",
                mode,
                str(file),
                str(number * each),
                str(each),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found: Counter[str] = Counter()
        for worker in workers:
            assert worker.stdout is not None
            found.update(json.loads(worker.stdout.readline()))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert found == {"ok": 25, "too_many_users": 25}
    with oauthgate.open(config) as opened:
        assert len(list(opened.users())) == 25
