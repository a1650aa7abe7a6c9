"""What a local provider remembers: pending pages, codes, tokens, browser sessions.

Owns: the records and `Shelf`, the bounded map that keeps them. All of it is in memory; whoever
touches it holds the provider's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """A map that forgets its oldest entry beyond a limit, so a load test cannot fill memory."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._items: OrderedDict[str, T] = OrderedDict()

    def put(self, key: str, value: T) -> None:
        self._items[key] = value
        if len(self._items) > self._limit:
            self._items.popitem(last=False)

    def get(self, key: str | None) -> T | None:
        return None if key is None else self._items.get(key)

    def pop(self, key: str | None) -> T | None:
        return None if key is None else self._items.pop(key, None)

    def values(self) -> list[T]:
        return list(self._items.values())

    def clear(self) -> None:
        self._items.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)


@dataclass(slots=True)
class Pending:
    """A page that waits for a person's decision; `kind` is oauth1, oauth2 or logout."""

    kind: str
    client_id: str | None
    params: Mapping[str, str] = field(repr=False)
    expires_at: float = 0.0


@dataclass(slots=True)
class Session:
    """A browser signed in at the provider; `sid` is what ID tokens call it."""

    sid: str
    account_id: str
    auth_time: int


@dataclass(slots=True)
class Grant:
    """What an account allowed a client; revoking it ends every code and token that came of it."""

    client_id: str
    account_id: str
    scope: tuple[str, ...]
    auth_time: int
    sid: str
    nonce: str | None = field(default=None, repr=False)
    revoked: bool = False


@dataclass(slots=True)
class Code:
    grant: Grant
    redirect_uri: str
    code_challenge: str | None
    expires_at: float
    used: bool = False
    jkt: str | None = None  # `dpop_jkt`: the key that must redeem it


@dataclass(slots=True)
class AccessToken:
    grant: Grant
    scope: tuple[str, ...]
    issued_at: float
    expires_at: float
    revoked: bool = False
    jkt: str | None = None  # the key that every call must prove


@dataclass(slots=True)
class RefreshToken:
    grant: Grant
    expires_at: float | None = None
    used_at: float | None = None
    jkt: str | None = None  # a public client's key (RFC 9449 section 5)


@dataclass(slots=True)
class RequestToken:
    """OAuth 1.0a temporary credentials (RFC 5849 section 2.1)."""

    secret: str = field(repr=False)
    client_id: str
    callback: str
    expires_at: float
    account_id: str | None = None
    verifier: str | None = field(default=None, repr=False)
    attempts: int = 0


@dataclass(slots=True)
class OAuth1Token:
    """OAuth 1.0a token credentials (RFC 5849 section 2.3); they have no expiry."""

    secret: str = field(repr=False)
    client_id: str
    account_id: str


@dataclass(slots=True)
class Tweet:
    id: str
    account_id: str
    text: str
    created_at: float
