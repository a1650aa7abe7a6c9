"""Ending an older secret: everything is moved to the newest one, and what needs an old one is told.

`rotate` goes over all records until a whole pass finds nothing to move. What it cannot move, because
only the visitor has what was hashed, are the hashes of the sessions: they go on under the old secret
until they end, and `examine` counts them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import GateError, SealError
from .io import IO
from .leases import LEASE
from .records import User, decode
from .rehashing import Rehasher
from .resealing import LEFT_ALONE, UNSEALED, reseal
from .seal import key_id_of, spelt
from .sessions import SessionPolicy
from .vault import Vault

#: Passes after the first; each finds only what was written during the one before.
MORE_PASSES = 10

Progress = Callable[[int], None]


def _nothing(done: int) -> None:
    return


@dataclass(slots=True)
class Rotated:
    """What a rotation did. `unreadable` are records that no configured secret opens; `left` leases of an
    older secret; `contested` pairs of users who claim one account. It is `settled` when a whole pass
    found nothing to move; what never settles is being written by a process that has not got the newest
    secret first.
    """

    resealed: int = 0
    rehashed: int = 0
    unreadable: int = 0
    left: int = 0
    contested: list[tuple[str, str]] = field(default_factory=list)
    records: int = 0
    settled: bool = False


async def rotate(vault: Vault, io: IO, progress: Progress = _nothing) -> Rotated:
    """Seal and hash everything with the first secret, while the site serves.

    Raises `GateError` or `StoreError`; then what was done is done, and calling it again goes on.
    """
    done = Rotated()
    rehasher = Rehasher(vault)
    await vault.check_keys()
    for _ in range(1 + MORE_PASSES):
        rehasher.contested.clear()
        moved = await _pass(vault, rehasher, done, progress)
        done.contested = sorted(rehasher.contested)
        done.settled = not moved and not done.left and not done.contested
        if done.settled and not done.unreadable:
            await vault.key_ring.leave_only_the_newest()
        if not moved and not done.left:
            break
        if done.left:
            await io.sleep(LEASE / 5)
    return done


async def _pass(vault: Vault, rehasher: Rehasher, done: Rotated, progress: Progress) -> int:
    moved = done.unreadable = done.left = done.records = 0
    async for key, record in vault.store.scan(""):
        if key in UNSEALED:
            continue
        done.records += 1
        progress(done.records)
        if key.startswith(LEFT_ALONE):
            done.left += key_id_of(record.value) != vault.keys.key_id
            continue
        try:
            resealed = await reseal(vault.store, vault.keys, key, record)
            rehashed = 0
            if key.startswith("user/"):
                found = await vault.user(key.removeprefix("user/"))
                rehashed = await rehasher.move(found[0]) if found else 0
        except SealError:
            done.unreadable += 1
            continue
        except GateError as error:
            if error.code != "record_unreadable":
                raise
            done.unreadable += 1
            continue
        done.resealed += resealed
        done.rehashed += rehashed
        moved += resealed + rehashed
    return moved


@dataclass(slots=True)
class KeyUse:
    """What still needs one secret; `position` counts from 1, the one that seals.

    `records` by kind are sealed with it, `hashes` by kind are found by its hash, `sessions` are those
    that end with it, at `last_session` (Unix seconds) at the latest. It is `needed` until a rotation has
    finished (`keyring.py`).
    """

    position: int
    key_id: bytes
    records: Counter[str] = field(default_factory=Counter)
    hashes: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    last_session: float | None = None
    needed: bool = True

    @property
    def removable(self) -> bool:
        """Whether nothing is lost without it: at most sessions end, and so must be told."""
        held = self.needed or self.records.total() or self.hashes.total()
        return self.position > 1 and not held


@dataclass(slots=True)
class KeyReport:
    """Every configured secret's use; `unknown` are records by the id of a key that is not configured,
    and `damaged` those that do not open although theirs is."""

    keys: list[KeyUse]
    unknown: Counter[str] = field(default_factory=Counter)
    damaged: int = 0


async def examine(vault: Vault, policy: SessionPolicy, progress: Progress = _nothing) -> KeyReport:
    """Look at every record, and change none. Raises `GateError`, `StoreError`."""
    uses = {key: KeyUse(place, key) for place, key in enumerate(vault.keys.key_ids, 1)}
    report = KeyReport(list(uses.values()))
    needed = await vault.key_ring.needed()
    for each in report.keys:
        each.needed = each.key_id in needed
    rehasher = Rehasher(vault)
    seen = 0
    async for key, record in vault.store.scan(""):
        if key in UNSEALED:
            continue
        seen += 1
        progress(seen)
        key_id = key_id_of(record.value)
        use = uses.get(key_id) if key_id is not None else None
        if use is None:
            report.unknown[key_id.hex() if key_id else "not sealed"] += 1
            continue
        use.records[key.partition("/")[0]] += 1
        try:
            plaintext = vault.keys.open(key, record.value)
            if key.startswith("user/"):
                await _examine_user(vault, policy, rehasher, decode(User, plaintext), report)
        except SealError:
            report.damaged += 1
        except GateError as error:
            if error.code != "record_unreadable":
                raise
            report.damaged += 1
    return report


async def _examine_user(
    vault: Vault, policy: SessionPolicy, rehasher: Rehasher, user: User, report: KeyReport
) -> None:
    now = time.time()
    for session in user.sessions:
        if not policy.live(session, now):
            continue
        # One from before the key was written down: of the oldest, as far as anybody can tell.
        use = next((use for use in report.keys if use.key_id == session.key), report.keys[-1])
        use.sessions += 1
        use.last_session = max(use.last_session or 0.0, session.created + policy.absolute_timeout)
    if len(report.keys) > 1:
        older = await rehasher.under_older(user)
        for item, key in older:
            digests = vault.keys.hashes(item.kind, item.value.encode("utf-8", "surrogatepass"))
            place = [f"{item.kind}/{spelt(digest)}" for digest in digests].index(key)
            report.keys[place].hashes[item.kind] += 1
