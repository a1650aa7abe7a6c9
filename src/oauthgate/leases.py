"""Leases: who is refreshing a link's token, over all processes.

A lease ends by itself `LEASE` seconds after its holder's last sign of life, so a holder that was killed
stops nobody for longer.
"""

from __future__ import annotations

import time

from .errors import Conflict, GateError
from .records import Lease
from .stores import ABSENT
from .vault import Vault

#: Seconds that a lease holds without its holder's heartbeat.
LEASE = 10.0


class Leases:
    """The leases of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def take(self, lease: str, holder: str) -> bool:
        try:
            await self._vault.put(
                lease, Lease(holder=holder), expect=ABSENT, expires_at=time.time() + LEASE
            )
        except Conflict:
            return False
        return True

    async def renew(self, lease: str, holder: str) -> bool:
        """Extend the lease; false when it is not ours any more."""
        try:
            found = await self._vault.get(Lease, lease)
            if found is None or found[0].holder != holder:
                return False
            await self._vault.put(lease, found[0], expect=found[1], expires_at=time.time() + LEASE)
        except (Conflict, GateError):
            return False
        return True

    async def release(self, lease: str, holder: str) -> None:
        try:
            found = await self._vault.get(Lease, lease)
            if found is not None and found[0].holder == holder:
                await self._vault.delete(lease, expect=found[1])
        except (Conflict, GateError):
            return  # it ends by itself
