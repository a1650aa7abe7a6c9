"""The contract of a store, over the stores of this package and over foreign ones behind the bridge."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from oauthgate.stores import make_store
from oauthgate.stores.memory import MemoryStore
from oauthgate.stores.sqlite import SQLiteStore
from oauthgate.testing import StoreContract

from .toys import AsyncOnlyStore, Engine, SyncOnlyStore


class TestMemoryStore(StoreContract):
    """`memory:NAME`."""

    survives_fork = False

    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.name = secrets.token_hex(8)

    def make_store(self, blocking: bool) -> MemoryStore:
        return MemoryStore(f"memory:{self.name}", blocking=blocking)


class TestSQLiteStore(StoreContract):
    """One file."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'a folder' / 'gate %41.db'}"

    def make_store(self, blocking: bool) -> Any:
        store = make_store(self.url, blocking=blocking)
        assert isinstance(store, SQLiteStore)
        return store


class TestSyncOnlyStore(StoreContract):
    """A third party's store of plain functions: in a worker thread under ASGI."""

    survives_fork = False

    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.engine = Engine()

    def make_store(self, blocking: bool) -> SyncOnlyStore:
        return SyncOnlyStore(self.engine)


class TestAsyncOnlyStore(StoreContract):
    """A third party's store of coroutines that suspend: on a loop of its own under WSGI."""

    survives_fork = False

    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.engine = Engine()

    def make_store(self, blocking: bool) -> AsyncOnlyStore:
        return AsyncOnlyStore(self.engine)
