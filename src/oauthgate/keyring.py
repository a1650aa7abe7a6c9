"""Which secrets a store needs, kept in the store itself: `meta/key-check`.

Its value lists the id of every key that anybody has written with since the last finished rotation. A
process that lacks one of them could miss what is there: it would find no claim of an account, and make a
second user of a person. So it answers 503 instead, and says which secret to put back. The record is
sealed by whoever added a key, so one that lacks the newest secret cannot even open it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from .errors import Conflict, GateError
from .seal import KEY_ID_LENGTH, Keys, key_id_of
from .stores import ABSENT, Record, Store

KEY_CHECK = "meta/key-check"
_TEXT = b"oauthgate key check 1"


class KeyRing:
    """The keys that one store needs. Every method raises `GateError` 503 when we have not got them all,
    and `StoreError`; `open_record` opens a sealed value under its key or raises that `GateError`."""

    def __init__(self, store: Store, keys: Keys, open_record: Callable[[str, bytes], bytes]) -> None:
        self._store = store
        self._keys = keys
        self._open = open_record

    async def join(self) -> None:
        """Check that we have every key that is needed, and note down the one that we write with."""
        while True:
            stored = await self._store.get(KEY_CHECK)
            needed = self._read(stored)
            if stored is not None and self._keys.key_id in needed:
                return
            await self._write({*needed, self._keys.key_id}, stored)

    async def needed(self) -> frozenset[bytes]:
        """Their ids."""
        return self._read(await self._store.get(KEY_CHECK))

    async def leave_only_the_newest(self) -> None:
        """After a finished rotation: the older secrets may go."""
        while True:
            stored = await self._store.get(KEY_CHECK)
            if stored is not None and self._read(stored) == {self._keys.key_id}:
                return
            await self._write({self._keys.key_id}, stored)

    async def _write(self, key_ids: Iterable[bytes], stored: Record | None) -> None:
        sealed = self._keys.seal(KEY_CHECK, _TEXT + b"".join(sorted(key_ids)))
        # On a conflict somebody else has noted something: the caller reads again.
        with contextlib.suppress(Conflict):
            await self._store.put(KEY_CHECK, sealed, expect=stored.version if stored else ABSENT)

    def _read(self, stored: Record | None) -> frozenset[bytes]:
        if stored is None:
            return frozenset()
        value = self._open(KEY_CHECK, stored.value)
        ids = value.removeprefix(_TEXT)
        if not value.startswith(_TEXT) or len(ids) % KEY_ID_LENGTH:
            raise GateError("record_unreadable", "the store's key check does not hold")
        starts = range(0, len(ids), KEY_ID_LENGTH)
        needed = frozenset(ids[start : start + KEY_ID_LENGTH] for start in starts)
        if not needed:  # the first form of the record had no list
            needed = frozenset({key_id_of(stored.value) or b""})
        missing = needed - {*self._keys.key_ids}
        if missing:
            raise GateError(
                "record_unreadable",
                "a secret that this store still needs is not configured (key id "
                f"{', '.join(sorted(each.hex() for each in missing))}): put it back into [oauthgate] "
                "secret, behind the newest, and run oauthgate keys rotate before it goes",
            )
        return needed
