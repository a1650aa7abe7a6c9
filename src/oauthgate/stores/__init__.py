"""Stores: where sealed records live. `make_store` finds one by the scheme of its URL.

A third-party package adds a scheme through the entry-point group `oauthgate.stores`; its entry is
called with the URL and `blocking=True` or `False` and returns an object with the methods of `Store`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from ..errors import ConfigError, Conflict
from .base import ABSENT, ANY, Batching, Expect, Record, Stamped, Store, Watching, Write
from .bridge import bridge

__all__ = [
    "ABSENT",
    "ANY",
    "Batching",
    "Conflict",
    "Expect",
    "Record",
    "Stamped",
    "Store",
    "Watching",
    "Write",
    "bridge",
    "known_schemes",
    "make_store",
]

_BUILT_IN = {
    "dynamodb": "oauthgate.stores.dynamodb:DynamoDBStore",
    "memory": "oauthgate.stores.memory:MemoryStore",
    "postgres": "oauthgate.stores.postgres:PostgresStore",
    "postgresql": "oauthgate.stores.postgres:PostgresStore",
    "sqlite": "oauthgate.stores.sqlite:SQLiteStore",
    "redis": "oauthgate.stores.redis:RedisStore",
    "rediss": "oauthgate.stores.redis:RedisStore",
    "unix": "oauthgate.stores.redis:RedisStore",
    "redis+sentinel": "oauthgate.stores.redis:RedisStore",
    "rediss+sentinel": "oauthgate.stores.redis:RedisStore",
    "redis+cluster": "oauthgate.stores.redis:RedisStore",
    "rediss+cluster": "oauthgate.stores.redis:RedisStore",
}


def known_schemes() -> list[str]:
    """The schemes that a store URL can have here."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group="oauthgate.stores"))})


def make_store(url: str, *, blocking: bool) -> Store:
    """The store that `url` names, for stepped (`blocking`) or awaited use. Opens nothing yet.

    Raises `ConfigError` when no installed package knows the scheme.
    """
    scheme = url.partition(":")[0]
    for entry in entry_points(group="oauthgate.stores"):
        if entry.name == scheme:
            return bridge(entry.load()(url, blocking=blocking), blocking=blocking)
    if scheme in _BUILT_IN:  # the source tree without its metadata
        module, _, name = _BUILT_IN[scheme].partition(":")
        factory = getattr(__import__(module, fromlist=[name]), name)
        return bridge(factory(url, blocking=blocking), blocking=blocking)
    raise ConfigError(
        f"[oauthgate] store: found the scheme {scheme!r}, expected one of: {', '.join(known_schemes())}"
    )
