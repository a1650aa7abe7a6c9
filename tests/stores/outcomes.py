"""What every fault of a store comes to, for its callers, for who needs it, and for who does not."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stores import ABSENT
from tests.flows.steps import FLOW, set_cookies
from tests.support import SiteUnderTest


def refused(answer: httpx2.Response) -> None:
    """The store is needed and cannot be used: come back soon, as who you are."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    # A flow whose code was sent is over, and that cookie with it; nothing else changes.
    assert all(each.startswith(FLOW) for each in set_cookies(answer))
    for word in ("127.0.0.1", "sqlite", "gate.db", "Redis", "PostgreSQL", "DynamoDB"):
        assert word not in answer.text, "an error that a visitor can see names no place"


def untouched(site: SiteUnderTest) -> None:
    """Who is not signed in notices nothing, and may begin to sign in."""
    stranger = site.browser()
    for path in ("/who", "/"):
        answer = stranger.get(path)
        assert (answer.status_code, answer.json()["user_id"]) == (200, None)
        assert "set-cookie" not in answer.headers
    assert stranger.get("/_oauth/providers").status_code == 200
    assert stranger.get("/_oauth/spotify/login").status_code == 303


async def fails(store: Any, expected: str) -> None:
    """Every method raises, and none of them says that nothing is there."""
    for work in (
        store.get("k"),
        store.put("k", b"v"),
        store.put("k", b"v", expect=ABSENT),
        store.put("k", b"v", expect=1),
        store.delete("k"),
        store.delete("k", expect=1),
    ):
        with pytest.raises(StoreError, match=expected) as raised:
            await work
        assert not isinstance(raised.value, Conflict)
    with pytest.raises(StoreError, match=expected):
        _ = [item async for item in store.scan("")]
