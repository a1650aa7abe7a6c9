"""A user's document: every change is a compare-and-swap on its version, so no change is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from . import sessions
from .errors import Conflict, GateError
from .hooks import Hooks
from .io import IO
from .records import Link, Session, User
from .sessions import SessionPolicy, Ticket
from .stores import ABSENT
from .vault import Change, Vault

#: Attempts of a compare-and-swap before the store counts as too busy.
ATTEMPTS = 20


class Users:
    """The users of one vault: their links' tokens and labels, their sessions."""

    def __init__(self, vault: Vault, io: IO, policy: SessionPolicy, hooks: Hooks) -> None:
        self._hooks = hooks
        self._vault = vault
        self._io = io
        self._policy = policy

    async def update(
        self,
        user_id: str,
        change: Callable[[User], User | None],
        *,
        create: bool = False,
        beside: Sequence[Change] = (),
    ) -> User | None:
        """Read, change, write by version, again when another writer was faster.

        `beside` is written together with the new document, and only then.

        `change` returns the new document, or None to leave it; then nothing is written and None is
        returned, as when there is no such user and `create` is false. Raises `GateError` 503.
        """
        key = f"user/{user_id}"
        for attempt in range(ATTEMPTS):
            found = await self._vault.user(user_id)
            if found is None and not create:
                return None
            user = found[0] if found else User(id=user_id, created=time.time())
            changed = change(user)
            if changed is None:
                return None
            try:
                await self._vault.put_all([Change(key, changed, found[1] if found else ABSENT), *beside])
            except Conflict:
                await self._io.sleep(0.001 * attempt)
                continue
            return changed
        raise GateError("store_unavailable", "too many writers at once; try again")

    async def describe(
        self, user_id: str, provider: str, account_id: str, *, label: str | None, default: bool | None
    ) -> User | None:
        """Give a link its label, or make it the provider's default; None when it is gone."""

        def change(user: User) -> User | None:
            if user.link(provider, account_id) is None:
                return None
            links = []
            for held in user.links:
                if held.provider == provider and held.account_id == account_id:
                    held = msgspec.structs.replace(
                        held,
                        label=held.label if label is None else label,
                        default=held.default if default is None else default,
                    )
                elif held.provider == provider and default:
                    held = msgspec.structs.replace(held, default=False)
                links.append(held)
            return msgspec.structs.replace(user, links=links)

        return await self.update(user_id, change)

    # -- tokens

    async def replace_link(
        self, user_id: str, before: Link, change: Callable[[Link], Link]
    ) -> Link | None:
        """Change a link that still holds the token it held in `before`.

        Returns the link as it then is: another writer's, when that was faster; None when it was
        unlinked, which a late refresh must not undo.
        """
        outcome: list[Link] = []

        def apply(user: User) -> User | None:
            outcome.clear()
            held = user.link(before.provider, before.account_id)
            if held is None:
                return None
            if held.token != before.token:
                outcome.append(held)
                return None
            changed = change(held)
            outcome.append(changed)
            return msgspec.structs.replace(
                user, links=[changed if item is held else item for item in user.links]
            )

        await self.update(user_id, apply)
        return outcome[0] if outcome else None

    # -- sessions

    async def end_session(self, ticket: Ticket, *, everywhere: bool = False) -> User | None:
        """End the session that the ticket proves, or all of its user's; the user as it was before."""
        before: list[User] = []

        def change(user: User) -> User | None:
            before.clear()
            held = sessions.find(self._vault.keys, user, ticket, self._policy, time.time())
            if held is None:
                return None
            before.append(user)
            if everywhere:
                return msgspec.structs.replace(user, sessions=[])
            return sessions.without_session(user, held.id)

        await self.update(ticket.user_id, change)
        if before:
            await self._hooks.run("logout", ticket.user_id, None)
        return before[0] if before else None

    async def another_session(self, user_id: str, provider: str, account_id: str) -> Ticket | None:
        """One more session of a user who signed in a moment ago; None when the account is not linked."""
        ticket, session = sessions.issue(
            self._vault.keys, user_id, now=time.time(), provider=provider, account_id=account_id
        )

        def change(user: User) -> User | None:
            if user.link(provider, account_id) is None:
                return None
            return sessions.with_session(user, session, self._policy, time.time())

        return ticket if await self.update(user_id, change) is not None else None

    async def end_sessions(self, user_id: str, chosen: Callable[[Session], bool]) -> int:
        """End the sessions of a user that `chosen` picks; how many there were."""
        count = 0

        def change(user: User) -> User | None:
            nonlocal count
            kept = [held for held in user.sessions if not chosen(held)]
            count = len(user.sessions) - len(kept)
            return msgspec.structs.replace(user, sessions=kept) if count else None

        await self.update(user_id, change)
        if count:
            await self._hooks.run("logout", user_id, None)
        return count

    async def touch(self, user: User, version: int, session: Session) -> None:
        """Move `last_seen` on; a conflict is left alone, because another writer was alive too."""
        seen = msgspec.structs.replace(session, last_seen=time.time())
        changed = [seen if held.id == session.id else held for held in user.sessions]
        try:
            await self._vault.put(
                f"user/{user.id}", msgspec.structs.replace(user, sessions=changed), expect=version
            )
        except (Conflict, GateError):
            return
