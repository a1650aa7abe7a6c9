"""Moving what is found by a keyed hash to the hash of the newest secret.

The hash of an account, or of a provider's session id, can be made again from the documents of the users,
which hold both. The record is copied to its new key first and removed from the old one afterwards, and
every look-up goes from the old to the new (`Vault.hash_keys`), so it is never missed. A session's own
hash cannot move: only its owner has what was hashed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import msgspec

from .errors import Conflict
from .records import AccountRecord, ProviderSession, User, decode
from .stores import ABSENT
from .vault import Vault


@dataclass(frozen=True, slots=True)
class Hashed:
    """A record that a user's document says there should be: `kind` is the first part of its key."""

    kind: str
    record: type[AccountRecord] | type[ProviderSession]
    value: str


def hashed_of(user: User) -> list[Hashed]:
    """The claims of a user's links, and the marks of the provider's sessions it signed in with."""
    claims = (f"{link.identity}\x00{link.account_id}" for link in user.links)
    sids = {f"{held.provider}\x00{held.sid}" for held in user.sessions if held.sid}
    return [
        *(Hashed("account", AccountRecord, value) for value in dict.fromkeys(claims)),
        *(Hashed("sid", ProviderSession, value) for value in sorted(sids)),
    ]


class Rehasher:
    """Moves the hashed records of one vault, user by user."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        #: Two users who claim one account, each under another secret: left as they are, to be seen.
        self.contested: set[tuple[str, str]] = set()

    async def under_older(self, user: User) -> list[tuple[Hashed, str]]:
        """The records of a user that are still under an older secret's hash, with their keys."""
        found = []
        for item in hashed_of(user):
            for digest in self._vault.hash_keys(item.kind, item.value)[:-1]:
                key = f"{item.kind}/{digest}"
                stored = await self._vault.get(item.record, key)
                if stored is not None and stored[0].user_id == user.id:
                    found.append((item, key))
        return found

    async def move(self, user: User) -> int:
        """Move a user's records; how many were moved. Raises `GateError`, `StoreError`."""
        moved = 0
        for item, old in await self.under_older(user):
            moved += await self._move(user, item, old)
        return moved

    async def _move(self, user: User, item: Hashed, old: str) -> bool:
        store, keys = self._vault.store, self._vault.keys
        new = f"{item.kind}/{self._vault.hash_key(item.kind, item.value)}"
        stored = await store.get(old)
        if stored is None:
            return False
        record: msgspec.Struct = decode(item.record, keys.open(old, stored.value))
        try:
            await self._vault.put(new, record, expect=ABSENT, expires_at=stored.expires_at)
        except Conflict:
            there = await self._vault.get(item.record, new)
            # (A provider's session may have signed in two users here: the later one counts.)
            if item.kind == "account" and there is not None and there[0].user_id != user.id:
                self.contested.add((user.id, there[0].user_id))
                return False
        # A conflict: it was released meanwhile, or another rotation was faster.
        with contextlib.suppress(Conflict):
            await self._vault.delete(old, expect=stored.version)
        if item.kind == "account":
            await self._let_go_if_unlinked(user.id, item, new)
        return True

    async def _let_go_if_unlinked(self, user_id: str, item: Hashed, new: str) -> None:
        """An unlink that happened in between looked for the claim before the copy was there."""
        after = await self._vault.user(user_id)
        if after is not None and item in hashed_of(after[0]):
            return
        there = await self._vault.get(AccountRecord, new)
        if there is None or there[0].user_id != user_id:
            return
        try:
            await self._vault.delete(new, expect=there[1])
            # As everywhere: whoever deletes a claim looks for its link afterwards.
            after = await self._vault.user(user_id)
            if after is not None and item in hashed_of(after[0]):
                await self._vault.put(new, there[0], expect=ABSENT)
        except Conflict:
            return
