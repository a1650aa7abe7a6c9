"""Sealed records in the store: the only way to them.

Every value is sealed under its key's name before the store sees it and opened after. A store that
fails is a 503, never "no such record"; a value that does not open is a 503 too, and nobody's session
ends because of it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

import msgspec

from .errors import Conflict, GateError, SealError, StoreError
from .keyring import KeyRing
from .records import User, decode, encode
from .seal import Keys, spelt
from .stores import ANY, Expect, Store, Write

log = logging.getLogger("oauthgate.store")

R = TypeVar("R", bound=msgspec.Struct)

#: Opened users kept in this process, to spare opening and decoding what has not changed.
CACHE_SIZE = 2048
#: Seconds by which the two clocks may have come apart. With more, this process was frozen in between, as
#: a Lambda function is between two events: nobody told it anything, and its monotonic clock may have
#: stood still.
FROZEN = 0.25
#: Seconds between two clean-ups by one process. Expiry is checked at use; this only frees space.
TIDY_EVERY = 600.0
#: Says of a store that it is being filled from another one (`copying.py`), as JSON in clear.
COPY_MARK = "meta/store-copy"


class Opened:
    """A user's document as it was read: `value` sealed, `user` decoded, at `version`.

    `stamp`, `until` (`time.monotonic`) and `drift` are what is needed to tell later, without asking the
    store, whether it still is the latest.
    """

    __slots__ = ("drift", "key", "stamp", "until", "user", "value", "version")

    def __init__(self, key: str, value: bytes, user: User, version: int) -> None:
        self.key = key
        self.value = value
        self.user = user
        self.version = version
        self.stamp: object | None = None
        self.until = 0.0
        self.drift = 0.0

    def __repr__(self) -> str:
        return f"Opened({self.user!r})"


class Change(NamedTuple):
    """One of several writes that belong together: the arguments of `Vault.put`."""

    key: str
    record: msgspec.Struct
    expect: Expect = ANY
    expires_at: float | None = None


class Vault:
    """One gate's records. `reads` and `writes` count calls to the store.

    `near` is for how many seconds a user's document that was read is believed where the store cannot
    tell whether it changed. One that can (`stores.base.Stamped`) is believed instead; one that hears of
    changes (`stores.base.Watching`) is believed while it does, and 0 switches that off too.
    """

    def __init__(self, store: Store, keys: Keys, near: float = 0.0) -> None:
        self.store = store
        self.keys = keys
        self.key_ring = KeyRing(store, keys, self._open)
        #: Whether our own key is noted down as one that is needed; not by who only looks.
        self.joins = True
        self.reads = 0
        self.writes = 0
        self._checked = False
        self._tidied = 0.0
        # Asked of this object, as a bridge has them when what it bridges has; `isinstance` would
        # remember an answer for the whole class.
        self._stamp: Callable[[str], object | None] | None = getattr(store, "stamp", None)
        watch: Callable[[float], None] | None = getattr(store, "watch", None)
        self.near = near
        if watch is not None:
            if near:
                watch(near)
            else:
                self._stamp = None
        elif self._stamp is not None:
            self.near = 0.0
        self._changes = 0
        self._users: OrderedDict[str, Opened] = OrderedDict()

    async def get(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """The record and its version, or None when there is none. Raises `GateError` 503."""
        if not self._checked:
            await self.check_keys()
        self.reads += 1
        try:
            stored = await self.store.get(key)
        except StoreError as error:
            _unavailable(error)
        if stored is None:
            return None
        return decode(kind, self._open(key, stored.value)), stored.version

    async def user(self, user_id: str) -> tuple[User, int] | None:
        """A user's document and its version, as the store has it now. Raises `GateError` 503."""
        found = await self.opened(user_id)
        return (found.user, found.version) if found is not None else None

    async def opened(self, user_id: str) -> Opened | None:
        """A user's document, read now; an unchanged one is not opened twice. Raises `GateError` 503."""
        if not self._checked:
            await self.check_keys()
        key = f"user/{user_id}"
        # Before the read: what is written while it is under way makes the answer one of before.
        stamp = self._stamp(key) if self._stamp is not None else None
        drift = time.time() - time.monotonic()
        until = time.monotonic() + self.near
        changes = self._changes
        self.reads += 1
        try:
            stored = await self.store.get(key)
        except StoreError as error:
            _unavailable(error)
        found = self._users.get(user_id)
        if stored is None:
            self._forget(user_id)
            return None
        # Compared by value: a nonce never repeats, so equal bytes are the same record.
        if found is None or found.value != stored.value or found.version != stored.version:
            self._forget(user_id)
            found = Opened(
                key, stored.value, decode(User, self._open(key, stored.value)), stored.version
            )
            self._users[user_id] = found
            if len(self._users) > CACHE_SIZE:
                self._forget_oldest()
        # A write of ours in the meantime may not have been told by the store yet.
        found.stamp, found.until = (stamp, until) if changes == self._changes else (None, 0.0)
        found.drift = drift
        return found

    def holds(self, found: Opened) -> bool:
        """Whether a document that was read may be used again without asking the store."""
        if self.near and abs(time.time() - time.monotonic() - found.drift) > FROZEN:
            return False
        then = found.stamp
        if then is not None and self._stamp is not None:
            now = self._stamp(found.key)
            if now is not None:
                return then == now
        return time.monotonic() < found.until

    def _changed(self, key: str) -> None:
        """Called before and after every write of ours, so that this process obeys itself at once."""
        self._changes += 1
        self._forget(key.removeprefix("user/"))

    def _forget(self, user_id: str) -> None:
        """Not to be believed any more, by whomever holds it."""
        found = self._users.pop(user_id, None)
        if found is not None:
            found.stamp, found.until = None, 0.0

    async def put(
        self, key: str, record: msgspec.Struct, *, expect: Expect, expires_at: float | None = None
    ) -> int:
        """Seal and write. Raises `Conflict`, or `GateError` 503."""
        if not self._checked:
            await self.check_keys()
        self.writes += 1
        self._changed(key)
        try:
            return await self.store.put(
                key, self.keys.seal(key, encode(record)), expires_at=expires_at, expect=expect
            )
        except Conflict:
            raise
        except StoreError as error:
            _unavailable(error)
        finally:
            self._changed(key)

    async def put_all(self, changes: Sequence[Change]) -> list[int]:
        """Seal and write what belongs together: in one step where the store can, else in this order.

        The first is the one to be conditional: a store that writes one after the other stops at the
        first that fails. Raises `Conflict`, or `GateError` 503.
        """
        together: Callable[[Sequence[Write]], Awaitable[list[int]]] | None
        together = getattr(self.store, "put_all", None)
        if together is None or len(changes) == 1:
            return [
                await self.put(key, record, expect=expect, expires_at=expires_at)
                for key, record, expect, expires_at in changes
            ]
        if not self._checked:
            await self.check_keys()
        self.writes += len(changes)
        for change in changes:
            self._changed(change.key)
        try:
            versions: list[int] = await together(
                [
                    Write(key, self.keys.seal(key, encode(record)), expires_at, expect)
                    for key, record, expect, expires_at in changes
                ]
            )
        except Conflict:
            raise
        except StoreError as error:
            _unavailable(error)
        finally:
            for change in changes:
                self._changed(change.key)
        return versions

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        """Delete. Raises `Conflict`, or `GateError` 503."""
        self.writes += 1
        self._changed(key)
        try:
            return await self.store.delete(key, expect=expect)
        except Conflict:
            raise
        except StoreError as error:
            _unavailable(error)
        finally:
            self._changed(key)

    async def users(self) -> AsyncIterator[User]:
        """Every user that can be opened; one that cannot is logged and passed over."""
        if not self._checked:
            await self.check_keys()
        async for key, stored in self.store.scan("user/"):
            try:
                yield decode(User, self._open(key, stored.value))
            except GateError as error:
                log.error("a user's record was passed over: %s", error)

    async def tidy(self) -> None:
        """Drop expired records, at most once in `TIDY_EVERY` seconds; a failing store is left alone."""
        now = time.time()
        if now - self._tidied < TIDY_EVERY:
            return
        self._tidied = now
        try:
            await self.store.purge(now)
        except StoreError as error:
            log.warning("expired records could not be dropped: %s", error)

    async def check_keys(self) -> None:
        """Make sure that we have every secret that this store needs, before anything is written, and
        note down the one that we write with (`keyring.py`).

        Raises `GateError` 503 otherwise: without one of them sessions and accounts would seem not to be
        there, and what is written could not be read once the right secrets are back.
        """
        try:
            if not self._checked:
                await self.store.open()
                await self._check_whole()
            if self.joins:
                await self.key_ring.join()
            else:
                await self.key_ring.needed()
        except StoreError as error:
            _unavailable(error)
        self._checked = True

    async def _check_whole(self) -> None:
        mark = await self.store.get(COPY_MARK)
        if mark is not None and not msgspec.json.decode(mark.value)["left"]:
            raise GateError(
                "store_unavailable",
                "this store is a copy that was not finished: run oauthgate store copy to its end",
            )

    def _open(self, key: str, sealed: bytes) -> bytes:
        try:
            return self.keys.open(key, sealed)
        except SealError as error:
            kind = key.partition("/")[0]
            log.error("a record of the kind %s does not open: %s", kind, error)
            cure = (
                "put the secret it was sealed with back into [oauthgate] secret"
                if error.unknown_key
                else "restore it from a backup, or delete it"
            )
            raise GateError("record_unreadable", f"a stored record does not open; {cure}") from None

    def _forget_oldest(self) -> None:
        # Another thread may have emptied it meanwhile.
        if self._users:
            try:
                _, found = self._users.popitem(last=False)
            except KeyError:
                return
            found.stamp, found.until = None, 0.0

    def hash_key(self, purpose: str, value: str) -> str:
        """The keyed hash of `value`, as a record's key is spelt."""
        return spelt(self.keys.hash(purpose, value.encode("utf-8", "surrogatepass")))

    def hash_keys(self, purpose: str, value: str) -> list[str]:
        """The same under every secret, in the order of a look-up: the one that is written comes last.

        `oauthgate keys rotate` copies a record there before it removes the old one, so in this order
        nobody misses it under both.
        """
        digests = self.keys.hashes(purpose, value.encode("utf-8", "surrogatepass"))
        return [spelt(digest) for digest in reversed(digests)]

    def __repr__(self) -> str:
        return f"Vault({self.store!r})"


def _unavailable(error: StoreError) -> NoReturn:
    log.error("the store is not available: %s", error)
    raise GateError("store_unavailable", "the store cannot be reached; try again shortly") from None
