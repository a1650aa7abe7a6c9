"""The store contract: a small versioned key-value map with expiry.

Atomicity, expiry, replication and failover are the engine's; the gate needs a point read, a
conditional write and a conditional delete. Values are sealed before they get here, so a store never
sees a secret. `oauthgate.testing.StoreContract` is what a store must pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable


class Expectation:
    """What a writer expects to find, when that is not a version."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


#: Write whatever is there.
ANY: Final = Expectation("ANY")
#: Write only when no live record is there.
ABSENT: Final = Expectation("ABSENT")

Expect = Expectation | int


class Record(NamedTuple):
    """A stored value. `version` changes with every write and never returns to an old number for a key;
    `expires_at` is a Unix time in seconds."""

    value: bytes
    version: int
    expires_at: float | None


@runtime_checkable
class Store(Protocol):
    """What the gate asks of a store.

    A store is made with its URL and `blocking`: true under WSGI, where no method may suspend, false
    under ASGI. A store that exists in one colour only says so in a class attribute `colour`
    (`"sync"` for plain functions, `"async"` for coroutines that need an event loop) and is bridged.

    Every method raises `oauthgate.errors.StoreError` when the engine fails; never an empty answer. A
    record past its `expires_at` is never returned and counts as absent, whether it was purged or not.
    """

    async def open(self) -> None:
        """Connect and create what is missing. May be called more than once."""

    async def close(self) -> None:
        """Let go of connections. The store may be opened again."""

    async def get(self, key: str) -> Record | None:
        """The live record under `key`, as the last successful write left it (a strong read)."""

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        """Write in one atomic step and return the new version.

        Raises `oauthgate.errors.Conflict` when `expect` does not hold.
        """

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        """Delete; true when a live record was there.

        Raises `oauthgate.errors.Conflict` when `expect` is a version that does not hold.
        """

    def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        """All live records whose key starts with `prefix`, in no order; writers are not blocked."""

    async def purge(self, now: float) -> int:
        """Drop records that expired before `now` (Unix seconds), in bounded batches; how many."""


class Write(NamedTuple):
    """One of several writes that belong together, each of another key: the arguments of `Store.put`."""

    key: str
    value: bytes
    expires_at: float | None
    expect: Expect


@runtime_checkable
class Batching(Protocol):
    """What a store may offer beside: several writes at the price of one.

    Where it is not offered the gate writes one after the other, in the order given, and stops at the
    first that fails. So this changes what a sign-in costs, and not what it means.
    """

    async def put_all(self, writes: Sequence[Write]) -> list[int]:
        """All of the writes, or none of them, in one atomic step; their new versions.

        Raises `oauthgate.errors.Conflict` when what one of them expects does not hold, and
        `oauthgate.errors.StoreError`; nothing is written then."""


@runtime_checkable
class Stamped(Protocol):
    """What a store may offer beside: telling, without any IO, that a record was not written.

    Of a store that offers it, a record that was read is believed for as long as the stamp that was taken
    before it was read stays equal. Where the stamp is None nothing is believed, unless the store is a
    `Watching` one.
    """

    def stamp(self, key: str) -> object | None:
        """A value that is equal at two moments only if nobody, in whatever process, has written the
        record under `key` in between; None when that cannot be told. A store may as well tell of all its
        records at once. Takes less than a microsecond or two."""


@runtime_checkable
class Watching(Stamped, Protocol):
    """A `Stamped` store that hears of the writes of other machines a little later, if all goes well.

    While its stamp is None, a record that was read is believed for `[oauthgate] near_cache` seconds, as
    that of any other store.
    """

    def watch(self, within: float) -> None:
        """Called once before the first stamp, when `near_cache` is not 0: tell of changes from now on. A
        stamp never stays equal for longer than `within` seconds after somebody else's write returned."""
