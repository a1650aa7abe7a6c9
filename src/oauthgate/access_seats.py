"""How many users there may be: `max_users` in `[access]`.

One record holds the id of every user that has a seat, and a user is made only by who has put his id
into it by compare-and-swap: so there is never one too many, however many processes sign people in at
once. The record is asked for at the making of a user and never else.

A seat is taken just before its user is made, so one whose user is not there was left by a crash, or its
user is gone. Nobody looks for those before all seats are taken.
"""

from __future__ import annotations

import secrets
import time

from .errors import Conflict, GateError, StoreError
from .io import IO
from .records import Seats, User
from .sessions import SessionPolicy
from .stores import ABSENT, Expect
from .vault import Vault

KEY = "access/seats"
#: The most that `max_users` may be: the record is read and written as a whole, and DynamoDB keeps no
#: more than 400 kB in one.
MOST = 10_000
#: Seconds after which a seat without its user is free: far more than the two writes may lie apart
#: (`WITHIN`) and the clocks of two machines differ.
GRACE = 900
WITHIN = 60.0
#: Seconds that a writer goes on trying while others take seats.
PATIENCE = 20.0
#: The share of its time that a process spends on looking for free seats, when all are taken.
SHARE = 0.05
#: Seconds that one look may take before another one of the same process begins beside it.
LOOKING = 60.0


class Admission:
    """The seats of one gate."""

    def __init__(self, vault: Vault, io: IO, policy: SessionPolicy, limit: int) -> None:
        self._vault = vault
        self._io = io
        self._policy = policy
        self._limit = limit
        self._counted = False
        self._look_again = 0.0

    def __repr__(self) -> str:
        return f"Admission({self._limit})"

    async def room(self) -> None:
        """Raise `GateError` 403 when there is no free seat: asked before the application's hook is."""
        seats, version = await self._read()
        if len(seats) >= self._limit and not await self._free_some(seats, version):
            raise _full()

    async def take(self, user_id: str) -> float:
        """Give a user who is about to be made a seat; until when (`time.monotonic`) to make him.

        Raises `GateError`: 403 when there is no free one, 503 when the store cannot tell.
        """
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            begun = time.monotonic()
            seats, version = await self._read()
            if user_id not in seats and len(seats) >= self._limit:
                if not await self._free_some(seats, version):
                    raise _full()
                continue
            # Written also when it is there: nobody may take it for one that was left behind.
            if await self._write({**seats, user_id: int(time.time())}, version):
                return begun + WITHIN
            await self._io.sleep(secrets.randbelow(20) / 1000)
        raise GateError("store_unavailable", "too many new users at once; try again")

    async def _read(self) -> tuple[dict[str, int], int]:
        """The seats, and the version of their record."""
        while True:
            found = await self._vault.get(Seats, KEY)
            if found is not None and self._counted:
                return found[0].seats, found[1]
            # Once in a process's life: users may have been made while there was no limit.
            seats = dict(found[0].seats) if found else {}
            for user_id in await self._users():
                seats.setdefault(user_id, 0)
            complete = found is not None and len(seats) == len(found[0].seats)
            self._counted = complete or await self._write(seats, found[1] if found else ABSENT)

    async def _write(self, seats: dict[str, int], expect: Expect) -> bool:
        try:
            await self._vault.put(KEY, Seats(seats=seats), expect=expect)
        except Conflict:
            return False
        return True

    async def _users(self) -> list[str]:
        """The ids of all users; none of their records is opened."""
        if time.monotonic() < self._look_again:
            raise _full()
        found = []
        try:
            async for key, _ in self._vault.store.scan("user/"):
                found.append(key.removeprefix("user/"))
                if len(found) > MOST:
                    self._look_again = time.monotonic() + LOOKING
                    raise _full()
        except StoreError:
            raise GateError("store_unavailable", "the users cannot be counted; try again") from None
        return found

    async def _free_some(self, seats: dict[str, int], version: int) -> bool:
        """Take back the seats of users who are gone; whether the record is worth reading again."""
        begun = time.monotonic()
        if begun < self._look_again:
            return False
        self._look_again = begun + LOOKING
        try:
            living = {
                user_id: since
                for user_id, since in seats.items()
                if time.time() - since < GRACE or await self._lives(user_id)
            }
        finally:
            done = time.monotonic()
            self._look_again = done + (done - begun) / SHARE
        if len(living) == len(seats):
            return False
        if not await self._write(living, version):
            self._look_again = 0.0  # somebody else was faster; what he left is worth a look
        return True

    async def _lives(self, user_id: str) -> bool:
        try:
            found = await self._vault.user(user_id)
        except GateError as error:
            if error.code == "record_unreadable":
                return True
            raise
        return found is not None and in_use(found[0], self._policy, time.time())


def in_use(user: User, policy: SessionPolicy, now: float) -> bool:
    """Whether somebody can still be this user: by a linked account, or a session that goes on."""
    return bool(user.links) or any(policy.expires_at(held) + GRACE > now for held in user.sessions)


def _full() -> GateError:
    return GateError(
        "too_many_users",
        "this site has as many users as [access] max_users lets it have; who has an account can sign in",
    )
