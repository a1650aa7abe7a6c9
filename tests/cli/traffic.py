"""The visitors of a site while an operator works on its store: a process of its own.

`python -m tests.cli.traffic CONFIG LOG STOP` signs people in, links, unlinks, renews tokens and comes
back with sessions, through the gate as the site does, until the file STOP is there. What was answered
is in LOG, one JSON document a line, the last one of an account is what holds; anything that a visitor
would have lost is there as an `error`.
"""

from __future__ import annotations

import json
import random
import secrets
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import AccountRecord, Link, Profile, Token
from oauthgate.seal import key_id_of
from oauthgate.sessions import Ticket, parse_ticket
from oauthgate.stepping import iterate, run
from oauthgate.stores import sqlite

#: People at most, so that a long run does not grow by itself.
MOST = 300


@dataclass(frozen=True)
class Person:
    """What a visitor was answered last: `user` is empty once the account was unlinked, `key` is the id
    of the key that the session was made with."""

    account: str
    user: str = ""
    token: str = ""
    ticket: str = ""
    key: str = ""


def gate_of(file: Path) -> Gate:
    return Gate(Config.load(file), BlockingIO())


def known(log: Path) -> dict[str, Person]:
    """The people of a log, by account. Raises what a visitor had to suffer."""
    found: dict[str, Person] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        document = json.loads(line)
        assert "error" not in document, document["error"]
        person = Person(**document)
        found[person.account] = person
    return found


class Visitors:
    """People at one gate."""

    def __init__(self, gate: Gate, log: Path, file: TextIO) -> None:
        self.gate = gate
        self.people = known(log)
        self._file = file

    def write(self, document: dict[str, str]) -> None:
        print(json.dumps(document), file=self._file, flush=True)

    def keep(self, person: Person) -> None:
        self.people[person.account] = person
        self.write(asdict(person))

    def sign_in(self, account: str) -> None:
        """A first visit, or another one with a new token."""
        link = make_link(account)
        ticket, user, _ = run(self.gate.accounts.login(link))
        before = self.people.get(account)
        if before is not None and before.user and before.user != user.id:
            self.write({"error": f"{account} became another user"})
        key = self.gate.keys.key_id.hex()
        self.keep(Person(account, user.id, link.token.access_token, ticket.value, key))

    def come_back(self, person: Person) -> None:
        """A request with a session, which must be good."""
        ticket = parse_ticket(person.ticket)
        if ticket is None or not self._usable(person):
            return
        if run(self.gate.visit(ticket, bearer=False)) is None:
            self.write({"error": f"{person.account} was signed out"})
        if run(self.gate.accounts.owner_of("p", person.account)) != person.user:
            self.write({"error": f"{person.account} has lost its owner"})

    def renew(self, person: Person) -> None:
        """What a refresh writes."""
        found = run(self.gate.vault.user(person.user))
        link = found[0].link("p", person.account) if found else None
        if link is None or link.token.access_token != person.token:
            self.write({"error": f"{person.account} has lost its token"})
            return
        fresh = Token(access_token=secrets.token_urlsafe(24))
        renewed = msgspec.structs.replace(link, token=fresh)
        run(self.gate.accounts.replace_link(person.user, link, lambda held: renewed))
        self.keep(_with(person, fresh))

    def link_and_unlink(self, person: Person) -> None:
        """One more account, and away with it."""
        ticket = parse_ticket(person.ticket)
        if ticket is None or not self._usable(person):
            return
        visit = run(self.gate.visit(ticket, bearer=False))
        if visit is None:
            self.write({"error": f"{person.account} was signed out"})
            return
        other = f"other-{secrets.token_hex(8)}"
        run(self.gate.accounts.attach(person.user, visit.session.id, make_link(other)))
        run(self.gate.accounts.detach(person.user, "p", other))
        self.keep(Person(other))

    def _usable(self, person: Person) -> bool:
        return bytes.fromhex(person.key) in self.gate.keys.key_ids

    def once(self) -> None:
        linked = [person for person in self.people.values() if person.user]
        chosen = random.choice(linked) if linked else None
        what = random.randrange(6)
        if chosen is None or (what == 0 and len(linked) < MOST):
            self.sign_in(f"account-{secrets.token_hex(8)}")
        elif what == 1:
            self.sign_in(chosen.account)
        elif what == 2:
            self.link_and_unlink(chosen)
        elif what == 3:
            self.renew(chosen)
        else:
            self.come_back(chosen)


def _with(person: Person, token: Token) -> Person:
    return Person(**{**asdict(person), "token": token.access_token})


def make_link(account: str) -> Link:
    return Link(
        provider="p",
        identity="p",
        account_id=account,
        profile=Profile(id=account),
        token=Token(access_token=secrets.token_urlsafe(24)),
    )


def check(gate: Gate, log: Path) -> int:
    """Nothing that a visitor was answered is lost, and the store is whole; how many people there are."""
    people = known(log)
    for person in people.values():
        owner = run(gate.accounts.owner_of("p", person.account))
        assert owner == (person.user or None), person.account
        if not person.user:
            continue
        found = run(gate.vault.user(person.user))
        assert found is not None, person.account
        link = found[0].link("p", person.account)
        assert link is not None and link.token.access_token == person.token, person.account
        ticket = parse_ticket(person.ticket)
        if bytes.fromhex(person.key) in gate.keys.key_ids:
            assert isinstance(ticket, Ticket)
            assert run(gate.visit(ticket, bearer=False)) is not None, person.account
    claims = set()
    for key, record in iterate(gate.store.scan("")):
        if key != "meta/store-copy":
            assert key_id_of(record.value) in gate.keys.key_ids
            gate.keys.open(key, record.value)
        if key.startswith("account/"):
            claims.add(key)
    for user in iterate(gate.vault.users()):
        for link in user.links:
            digest = gate.vault.hash_key("account", f"p\x00{link.account_id}")
            stored = run(gate.vault.get(AccountRecord, f"account/{digest}"))
            assert stored is not None and stored[0].user_id == user.id
            claims.discard(f"account/{digest}")
    assert not claims, "claims without a link"
    return len(people)


def main(config: str, log: str, stop: str) -> None:
    # Other tests make the disk slow at times; how long a site waits for it is not what is tested here.
    sqlite.BUSY_TIMEOUT = 60_000
    gate = gate_of(Path(config))
    with Path(log).open("a") as file:
        visitors = Visitors(gate, Path(log), file)
        print("ready", flush=True)
        while not Path(stop).exists():
            try:
                visitors.once()
            except Exception as error:  # told to the test, and raised again
                visitors.write({"error": repr(error)})
                raise
    run(gate.close())


if __name__ == "__main__":
    main(*sys.argv[1:])
