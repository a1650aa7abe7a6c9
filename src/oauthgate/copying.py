"""Copying one store to another, of whatever kinds, while the site goes on with the first.

Records are copied as they are, sealed, with their expiry: no secret is needed, and none is seen. A run
writes what differs and removes what the source has no more, so it can be killed at any moment and run
again; with the site stopped, the last run makes the two equal.

A mark in the target says which source it is being filled from, and what it held when the last run ended.
So a store that holds anything else, or that was put into service since, is never written over; and no
site begins with a copy that was not finished.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec

from .errors import Conflict, StoreError
from .keyring import KEY_CHECK
from .stores import ABSENT, Record, Store
from .vault import COPY_MARK

MARK = COPY_MARK
PROBE = "meta/store-copy-probe"
#: Seconds of life of what is written only to see whether both stores are one.
PROBE_LIFE = 60.0
#: Runs over all records that one call makes before it leaves the rest to the next.
PASSES = 3


class Mark(msgspec.Struct, frozen=True):
    """`source` is the hash of the source's name; `left` what the target held when a run ended, or
    empty while one is under way."""

    source: str
    left: str = ""


@dataclass(slots=True)
class Copied:
    """What a call did: records of the source, how many were written and removed in the target, and how
    many still differed at its end."""

    records: int = 0
    written: int = 0
    removed: int = 0
    differing: int = 0


class NotCopied(StoreError):
    """The two stores are not ones to copy between. The message says why and what to do."""


async def copy(
    source: Store, target: Store, name: str, progress: Callable[[int], None] = lambda done: None
) -> Copied:
    """Make `target` equal to `source`, whose name (without credentials) is `name`.

    Raises `NotCopied`, `StoreError`.
    """
    await source.open()
    await target.open()
    if await _one_store(source, target):
        raise NotCopied("both are the same store: name two different ones")
    mark = Mark(hashlib.sha256(name.encode()).hexdigest())
    await _check_target(source, target, mark)
    # Said before the first record: a run that is killed is known as ours by the next.
    await target.put(MARK, msgspec.json.encode(mark))
    done = Copied()
    for _ in range(PASSES):
        written = await _carry(source, target, done, progress)
        removed = await _remove(source, target, done)
        if not written and not removed:
            break
    done.records, done.differing = await _compare(source, target)
    left = await _fingerprint(target)
    await target.put(MARK, msgspec.json.encode(Mark(mark.source, left)))
    return done


async def _one_store(source: Store, target: Store) -> bool:
    """Whether what is written to one can be read in the other, whatever they are called."""
    key = f"{PROBE}-{secrets.token_hex(8)}"
    await target.put(key, b"probe", expires_at=time.time() + PROBE_LIFE)
    try:
        return await source.get(key) is not None
    finally:
        await target.delete(key)


async def _check_target(source: Store, target: Store, mark: Mark) -> None:
    stored = await target.get(MARK)
    if stored is None:
        async for key, _ in _records(target):
            if key != KEY_CHECK:  # which is all that `store init` writes
                raise NotCopied(
                    "the target holds records that are no copy of this source: name an empty store "
                    "(another file, database, schema or ?prefix=)"
                )
        return
    try:
        there = msgspec.json.decode(stored.value, type=Mark)
    except msgspec.MsgspecError:
        raise NotCopied(f"the target's mark {MARK} cannot be read: begin with an empty store") from None
    if there.source != mark.source:
        raise NotCopied(
            "the target is a copy of another source, or of this one under another name: name it as in "
            "the first run, or begin with an empty store"
        )
    if there.left and there.left != await _fingerprint(target):
        raise NotCopied(
            "the target was written to since the last run: a site is using it, and what is new there "
            "would be lost; to begin anew, name an empty store"
        )


def _same(one: Record, other: Record) -> bool:
    return one.value == other.value and one.expires_at == other.expires_at


async def _carry(source: Store, target: Store, done: Copied, progress: Callable[[int], None]) -> int:
    written = seen = 0
    async for key, record in _records(source):
        seen += 1
        progress(seen)
        there = await target.get(key)
        if there is not None and _same(record, there):
            continue
        try:
            await target.put(
                key,
                record.value,
                expires_at=record.expires_at,
                expect=ABSENT if there is None else there.version,
            )
        except Conflict:
            raise NotCopied(
                "somebody else writes to the target: a site, or another copy; stop it first"
            ) from None
        written += 1
    done.written += written
    return written


async def _remove(source: Store, target: Store, done: Copied) -> int:
    removed = 0
    async for key, record in _records(target):
        if await source.get(key) is None:
            try:
                removed += await target.delete(key, expect=record.version)
            except Conflict:
                continue  # it expired at this moment
    done.removed += removed
    return removed


async def _compare(source: Store, target: Store) -> tuple[int, int]:
    """How many records the source has, and how many of both are not the same in both."""
    records = differing = 0
    async for key, record in _records(source):
        records += 1
        there = await target.get(key)
        if there is None or not _same(record, there):
            # Read again: what expired, or was changed, while we looked is no difference by itself.
            again = await source.get(key)
            differing += again is not None and (there is None or not _same(again, there))
    async for key, _ in _records(target):
        differing += await source.get(key) is None and await target.get(key) is not None
    return records, differing


async def _fingerprint(store: Store) -> str:
    """A digest of which records there are at which versions, in whatever order they come; without those
    that expire, which change it by themselves."""
    total = count = 0
    async for key, record in _records(store):
        if record.expires_at is None:
            digest = hashlib.sha256(f"{record.version}/{key}".encode("utf-8", "surrogatepass")).digest()
            total ^= int.from_bytes(digest, "big")
            count += 1
    return f"{count}-{total:064x}"


async def _records(store: Store) -> AsyncIterator[tuple[str, Record]]:
    """All records but the copy's own."""
    async for key, record in store.scan(""):
        if not key.startswith(MARK):
            yield key, record
