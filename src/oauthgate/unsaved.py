"""Refreshed tokens that the store would not take: the old one is used up, so the new one is not let go.

A rotating refresh token is dead as soon as the provider has answered. If the store fails right then,
this process has the only copy of the new one. It goes on trying while the lease of the refresh still
keeps the other processes from using the old one, and after that keeps it in memory for the next call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .errors import GateError
from .io import IO
from .leases import LEASE
from .records import Link
from .users import Users

log = logging.getLogger("oauthgate.refresh")

#: Seconds for which a call goes on trying: shorter than the lease, which may be a third old by then.
PATIENCE = LEASE / 2
#: Seconds between two attempts.
PAUSE = 0.1

Change = Callable[[Link], Link]


class Unsaved:
    """What `Users.replace_link` could not write, by the key of the refresh it came from."""

    def __init__(self, io: IO, users: Users) -> None:
        self._io = io
        self._users = users
        self._held: dict[str, tuple[Link, Change]] = {}

    async def save(self, key: str, user_id: str, before: Link, change: Change) -> Link | None:
        """`Users.replace_link`, with patience. Raises `GateError` 503 when that was in vain."""
        self._held[key] = (before, change)
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return await self._write(key, user_id, before, change)
            except GateError:
                if time.monotonic() >= give_up:
                    log.error(
                        "a new token of %s could not be written: it is kept here for the next call",
                        before.provider,
                    )
                    raise
            await self._io.sleep(PAUSE)

    async def save_old(self, key: str, user_id: str) -> None:
        """Write what an earlier call could not. Raises `GateError` 503 when it cannot either."""
        held = self._held.get(key)
        if held is not None:
            await self._write(key, user_id, *held)

    async def _write(self, key: str, user_id: str, before: Link, change: Change) -> Link | None:
        # Whether a write that failed was done after all cannot be told. If it was, the link holds the
        # new token, and nothing is changed; nor is it when somebody else has linked it anew.
        saved = await self._users.replace_link(user_id, before, change)
        self._held.pop(key, None)
        return saved
