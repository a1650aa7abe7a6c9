"""Going over all users, one by one as the store gives them; what cannot be opened is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..errors import GateError, SealError
from ..records import Session, User, decode
from ..vault import Vault
from .output import Output


class Walk:
    """The users of a vault. `unreadable` is the number of those that do not open."""

    def __init__(self, vault: Vault, out: Output) -> None:
        self._vault = vault
        self._out = out
        self.unreadable = 0

    async def users(self) -> AsyncIterator[User]:
        await self._vault.check_keys()
        async for key, stored in self._vault.store.scan("user/"):
            try:
                yield decode(User, self._vault.keys.open(key, stored.value))
            except (SealError, GateError) as error:
                self.unreadable += 1
                self._out.note(f"{key} cannot be read: {error}")

    @property
    def status(self) -> int:
        """The exit status: 1 when something could not be read."""
        return 1 if self.unreadable else 0


def session_fields(user_id: str, session: Session, expires_at: float) -> dict[str, object]:
    """What may be told of a session. Its hash is no secret of anybody's, but of no use either."""
    return {
        "session_id": session.id,
        "user_id": user_id,
        "provider": session.provider,
        "account_id": session.account_id,
        "created": session.created,
        "last_seen": session.last_seen,
        "expires_at": expires_at,
    }
