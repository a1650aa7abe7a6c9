"""The contract of a store over PostgreSQL, directly and behind PgBouncer in transaction mode."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from oauthgate.stores import make_store
from oauthgate.stores.postgres import PostgresStore
from oauthgate.testing import StoreContract
from tests.servers.postgres import PgBouncer, Postgres


class TestPostgresStore(StoreContract):
    """A schema whose name needs every kind of quoting."""

    @pytest.fixture(autouse=True)
    def _place(self, pg: Postgres, schema: str) -> None:
        name = f"{schema} \"; DROP é'%s$1{{table}}"
        self.url = pg.url(f"schema={quote(name, safe='')}&connections=8")

    def make_store(self, blocking: bool) -> Any:
        store = make_store(self.url, blocking=blocking)
        assert isinstance(store, PostgresStore)
        return store


class TestPostgresStoreBehindPgBouncer(StoreContract):
    """Three server connections for all clients: nothing may be left on one for the next statement."""

    @pytest.fixture(autouse=True)
    def _place(self, bouncer: PgBouncer, schema: str) -> None:
        self.url = bouncer.url(f"schema={schema}")

    def make_store(self, blocking: bool) -> Any:
        return make_store(self.url, blocking=blocking)
