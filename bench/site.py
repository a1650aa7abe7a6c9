"""Sites for the benchmarks: configurations, users with many links, and their session cookies.

Users are written straight into the store, sealed as the gate seals them: signing in through a provider
a million times would measure the provider.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from operator import itemgetter
from typing import Any
from unittest import mock

from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import AccountRecord, Link, Profile, Token, User, encode
from oauthgate.seal import Keys, spelt
from oauthgate.sessions import issue, new_user_id
from oauthgate.stepping import run
from oauthgate.stores import ANY

BASE = "http://localhost"
SECRET = "benchmarks-seal-with-this-0123456789abcdef"
NOWHERE = "http://localhost:1"
#: The most links a benchmark gives a user.
SERVICES = 50
ACCESS_TOKEN = "A" * 43


def service(number: int) -> str:
    """The name of a provider of `make_config`."""
    return f"service{number}"


def make_config(
    store: str, *, api: str = NOWHERE, services: int = SERVICES, **more: dict[str, Any]
) -> dict[str, Any]:
    """A gate over `store` with so many OAuth 2 services whose API is at `api`, and `more` tables."""
    tables: dict[str, Any] = {}
    for number in range(services):
        at = f"{api}/{number}"
        tables[service(number)] = {
            "client_id": f"client-{number}",
            "client_secret": "s" * 32,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "userinfo_endpoint": f"{at}/me",
            "api_base_url": f"{at}/api",
            "profile": {"id": "id", "name": "name", "email": "email"},
        }
    return {
        "oauthgate": {"base_url": BASE, "store": store, "secret": SECRET},
        "providers": {**tables, **more},
    }


def make_link(provider: str, account_id: str, now: float, **token: Any) -> Link:
    """A link as a sign-in leaves it: a token with a refresh token, a profile, the provider's answer."""
    name = f"Person {account_id}"
    return Link(
        provider=provider,
        identity=f"{NOWHERE}/{provider}",
        account_id=account_id,
        profile=Profile(id=account_id, name=name, email=f"{account_id}@example.com"),
        raw=b'{"id": "%s", "name": "%s"}' % (account_id.encode(), name.encode()),
        token=Token(
            **{
                "access_token": ACCESS_TOKEN,
                "refresh_token": "R" * 43,
                "expires_at": now + 30 * 86400,
                "received_at": now,
                **token,
            }
        ),
        scope=["read", "write"],
        linked_at=now,
    )


def make_user(keys: Keys, links: list[Link], now: float) -> tuple[User, str]:
    """A user with one session, and the value of the session cookie."""
    user_id = new_user_id()
    ticket, session = issue(
        keys, user_id, now=now, provider=links[0].provider, account_id=links[0].account_id
    )
    return User(id=user_id, created=now, links=links, sessions=[session]), ticket.value


def seed(config: dict[str, Any], links: int | list[Link], users: int = 1) -> list[str]:
    """Write users into the configured store, through the gate's own vault; their cookies' values."""
    now = time.time()
    gate = Gate(Config.load(config), BlockingIO())
    found = []
    try:
        for number in range(users):
            held = (
                [make_link(service(each), f"{number}-{each}", now) for each in range(links)]
                if isinstance(links, int)
                else links
            )
            user, cookie = make_user(gate.keys, held, now)
            run(gate.vault.put(f"user/{user.id}", user, expect=ANY))
            found.append(cookie)
    finally:
        run(gate.close())
    return found


def sealed_rows(
    keys: Keys, users: int, links: int, cookies: list[str], keep: int
) -> Iterator[tuple[str, bytes, int]]:
    """The rows (key, value, version) of so many users and of the accounts they own, made in bulk.

    The cookies of `keep` users, spread evenly, are appended to `cookies`.
    """
    now = time.time()
    every = max(1, users // max(1, keep))
    # One model, of which only the ids differ: making a million documents anew takes minutes.
    model = make_user(keys, [make_link(service(n), f"{n}", now) for n in range(links)], now)[0]
    plain = encode(model)
    for number in range(users):
        if number % every == 0 and len(cookies) < keep:
            user, cookie = make_user(keys, model.links, now)
            user_id, value = user.id, encode(user)
            cookies.append(cookie)
        else:
            user_id = new_user_id()
            value = plain.replace(model.id.encode(), user_id.encode())
        key = f"user/{user_id}"
        yield key, keys.seal(key, value), 1
        account = encode(AccountRecord(user_id=user_id, claimed_at=now))
        for link in range(links):
            key = "account/" + spelt(keys.hash("account", b"%d\x00%d" % (link, number)))
            yield key, keys.seal(key, account), 1


def cookie_header(value: str) -> str:
    """The `Cookie` header of a signed-in browser at `BASE`."""
    return f"oauthgate={value}"


class PlainKeys(Keys):
    """Keys that seal nothing: there is no such switch in the product, it is only to compare with."""

    def seal(self, name: str, plaintext: bytes) -> bytes:
        return plaintext

    def open(self, name: str, sealed: bytes) -> bytes:
        return sealed


@contextlib.contextmanager
def unsealed() -> Iterator[None]:
    """Gates made inside seal nothing."""
    with mock.patch("oauthgate.gate.load_keys", lambda config: PlainKeys(config.secrets)):
        yield


def fill_sqlite(config: dict[str, Any], users: int, links: int, keep: int = 1) -> list[str]:
    """Fill the configured SQLite file with so many users and their accounts; `keep` cookies."""
    gate = Gate(Config.load(config), BlockingIO())
    run(gate.vault.check_keys())  # makes the file and its schema
    run(gate.close())
    cookies: list[str] = []
    rows = sealed_rows(gate.keys, users, links, cookies, keep)
    path = config["oauthgate"]["store"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # A million users take a minute when the disk is waited for, and five when they come unsorted.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-262144")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO oauthgate (key, value, version) VALUES (?, ?, ?)",
            sorted(rows, key=itemgetter(0)),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return cookies
