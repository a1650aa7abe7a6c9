"""The contract of a store over DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from oauthgate.stores import bridge, make_store
from oauthgate.stores.dynamodb import LARGEST_ITEM, OVERHEAD, DynamoDBStore
from oauthgate.testing import StoreContract
from tests.servers.dynamodb import DynamoDB, dynamodb

from .dynamodb_places import credentials, own
from .redis_places import started


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoDB]:
    with started(dynamodb()) as found:
        yield found


class TestDynamoDBStore(StoreContract):
    """A table of its own, with a prefix that is a part of a key of the tests."""

    # moto counts the bytes of what is sent, which is base64; DynamoDB those of what is meant.
    largest_value = (LARGEST_ITEM - OVERHEAD) * 3 // 4 - 100

    @pytest.fixture(autouse=True)
    def _place(self, server: DynamoDB, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials(monkeypatch)
        self.url = own(server.endpoint, "&prefix=us")

    def make_store(self, blocking: bool) -> Any:
        store = make_store(self.url, blocking=blocking)
        assert isinstance(getattr(store, "inner", None), DynamoDBStore)
        assert bridge(store, blocking=blocking) is store
        return store
