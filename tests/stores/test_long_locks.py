"""Somebody holds the store for himself, for far longer than anything of the gate's waits.

SQLite and PostgreSQL, over both adapters, all four at once, so that the wait is paid for once. For a
release it is the whole minute: `OAUTHGATE_LOCK_SECONDS=60`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import httpx2

import oauthgate
from oauthgate.testing import LocalProvider
from tests.flows.steps import who
from tests.servers.postgres import Postgres
from tests.support import KINDS, Kind, make_config, site_under_test

from .engines import locked_file, locked_table
from .outcomes import refused, untouched

#: The gate waits 5 seconds for SQLite's other writer, and as long for PostgreSQL.
SECONDS = float(os.environ.get("OAUTHGATE_LOCK_SECONDS", "15"))
#: Seconds after which a request that needs the store has an answer: those 5, on a busy machine.
BOUND = 20.0
#: Requests of others while one waits.
OTHERS = 10


class Locked:
    """One site on a store that is about to be locked by `lock`."""

    def __init__(
        self, place: str, kind: Kind, lock: Callable[[], AbstractContextManager[None]], stack: ExitStack,
        provider_url: str, folder: Path,
    ) -> None:  # fmt: skip
        self.lock = lock
        self.config = make_config(provider_url, folder)
        self.config["oauthgate"] |= {"store": place, "secret": "s" * 32, "near_cache": 0}
        self.site = stack.enter_context(site_under_test(kind, self.config))
        self.browser, self.grace = self.site.browser(), self.site.browser()
        assert self.site.login(self.browser).status_code == 303
        self.user_id = who(self.browser)["user_id"]
        self.form = {"csrf_token": self.site.csrf(self.browser)}
        started = self.grace.get("/_oauth/spotify/login?next=/who")
        self.callback = self.site.authorize(started.headers["location"], "grace")

    def in_need(self) -> list[Callable[[], httpx2.Response]]:
        """Requests that cannot be answered without what is locked: a refresh, a logout and a login."""
        return [
            partial(self.browser.get, "/call/spotify/me"),
            partial(self.browser.post, "/_oauth/logout", data=self.form, headers=self.site.origin()),
            partial(self.grace.get, self.callback),
        ]

    def during(self, end: float) -> None:
        """Until `end` (of `time.monotonic`), and each of the requests once at least."""
        stranger = self.site.browser()
        with ThreadPoolExecutor(1) as pool:
            while True:
                for ask in self.in_need():
                    waiting = pool.submit(ask)
                    for _ in range(OTHERS):
                        assert who(stranger)["user_id"] is None
                    assert not waiting.done(), "nobody waited for the one who waits"
                    refused(waiting.result(BOUND))
                untouched(self.site)
                if time.monotonic() > end:
                    return

    def after(self) -> None:
        """Everything goes on where it was."""
        assert who(self.browser)["user_id"] == self.user_id
        assert self.browser.get("/call/spotify/me").status_code == 200
        # Not with the code of before the lock, which may be too old for the provider by now.
        assert self.site.login(self.grace, account="grace").status_code == 303
        assert self.site.post(self.browser, "/logout").status_code == 200
        assert who(self.browser)["user_id"] is None
        with oauthgate.open(self.config) as gate:
            links = [link for user in gate.users() for link in user.links]
        assert [link.state for link in links] == ["active"] * 2


def test_stores_that_are_locked(
    pg: Postgres, schema: str, provider: LocalProvider, provider_url: str, tmp_path: Path
) -> None:
    """Who needs what is locked has 503 after a bounded wait, all others are served meanwhile, and
    afterwards everything works, with every link and every token (row 102)."""
    with ExitStack() as stack:
        stores = []
        for kind in KINDS:
            path, own = tmp_path / f"{kind}.db", f"{schema}{kind}"
            for place, lock in (
                (f"sqlite:///{path}", partial(locked_file, path)),
                (pg.url(f"schema={own}"), partial(locked_table, pg, own)),
            ):
                stores.append(Locked(place, kind, lock, stack, provider_url, tmp_path))
        provider.expire_access_tokens()
        tokens = provider.count["token"]
        with ExitStack() as locks, ThreadPoolExecutor(len(stores)) as pool:
            for store in stores:
                locks.enter_context(store.lock())
            end = time.monotonic() + SECONDS
            for each in [pool.submit(store.during, end) for store in stores]:
                each.result()
        assert provider.count["token"] == tokens, "no code and no refresh token is used up for nothing"
        for store in stores:
            store.after()
