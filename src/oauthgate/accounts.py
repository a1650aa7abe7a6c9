"""Users, the accounts linked to them, and who owns an account: every change is a compare-and-swap.

An account belongs to the user whose id its `account/…` record holds; the record is claimed by
insert-if-absent, so one account has one owner. The order of the writes makes a crash harmless: a claim
without a link is released once it is old, and whoever writes a link or deletes a claim looks for the
other one afterwards.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from . import sessions
from .access_rules import Rules
from .access_seats import Admission
from .errors import Conflict, GateError
from .hooks import Hooks
from .io import IO
from .records import AccountRecord, Link, Session, Token, User
from .sessions import SessionPolicy, Ticket
from .stores import ABSENT
from .users import Users
from .vault import Change, Vault

#: Seconds that the two writes of a new link may lie apart; an older claim without its link was left
#: behind by a crash, or belongs to a link that was removed.
CLAIM_GRACE = 60.0
MAX_LINKS = 50


class Accounts(Users):
    """Users and their links in one vault. `rules` say who may sign in, `admission` how many."""

    def __init__(
        self,
        vault: Vault,
        io: IO,
        policy: SessionPolicy,
        hooks: Hooks,
        rules: Rules,
        admission: Admission | None,
    ) -> None:
        super().__init__(vault, io, policy, hooks)
        self._rules = rules
        self._admission = admission

    # -- sign in

    async def login(
        self,
        link: Link,
        *,
        sid: str = "",
        old: Ticket | None = None,
        beside: Callable[[str], Sequence[Change]] | None = None,
    ) -> tuple[Ticket, User, bool]:
        """Sign the owner of `link`'s account in, making the user on the first visit.

        `beside` is asked, with the user's id, what else to write together with the sign-in. `old` is
        the session that this browser had: it ends, whoever's it was, so that no session id survives a
        sign-in. Returns the new session's ticket, the user, and whether the user is new.

        Raises `GateError`: 403 for who is not admitted, of whom nothing is stored.
        """
        self._rules.admit(link)
        while True:
            user_id, fresh = await self._owner(link, sessions.new_user_id())
            ticket, session = sessions.issue(
                self._vault.keys,
                user_id,
                now=time.time(),
                provider=link.provider,
                account_id=link.account_id,
                sid=sid,
            )
            async with self._claimed(user_id, link, fresh):
                if fresh and self._admission is not None:
                    await self._admission.room()
                await self._hooks.run("login", user_id, link, new_user=fresh)
                user = await self._sign_in(
                    user_id, link, session, old, beside(user_id) if beside is not None else ()
                )
            if user is not None:
                await self._confirm(user_id, link)
                break
            await self._io.sleep(0.05)
        if old is not None and old.user_id != user_id:
            await self.end_session(old)
        return ticket, user, fresh

    async def _owner(self, link: Link, candidate: str) -> tuple[str, bool]:
        """The user that owns the account, claimed for `candidate` when nobody does."""
        found = await self._claim(link)
        if found is not None:
            return found[1].user_id, False
        record = AccountRecord(user_id=candidate, claimed_at=time.time())
        key = self._account_key(link)
        try:
            version = await self._vault.put(key, record, expect=ABSENT)
        except Conflict:
            found = await self._claim(link)
            if found is None:
                return await self._owner(link, candidate)
            return found[1].user_id, False
        try:
            # While a new secret is rolled out, a process that has not got it looks for claims in vain.
            # Whoever brings it notes it down before his first claim, so looking after ours is enough.
            await self._vault.check_keys()
        except GateError:
            with contextlib.suppress(Conflict):
                await self._vault.delete(key, expect=version)
            raise
        if self._vault.keys.several:
            # While a new secret is rolled out, another process may have claimed the same account under
            # another hash. Whoever claims looks there afterwards, so one of the two sees the other.
            found = await self._claim(link)
            if found is not None and found[0] != key:
                with contextlib.suppress(Conflict):
                    await self._vault.delete(key, expect=version)
                await self._io.sleep(secrets.randbelow(50) / 1000)
                return await self._owner(link, candidate)
        return candidate, True

    async def _sign_in(
        self,
        user_id: str,
        link: Link,
        session: Session,
        old: Ticket | None,
        beside: Sequence[Change],
    ) -> User | None:
        """Write link and session into the user's document; None when the claim was a dead one."""
        seated, seat_missing = 0.0, False

        def change(user: User) -> User | None:
            nonlocal seat_missing
            now = time.time()
            # A user who is not there yet, or whom nobody could be any more.
            made = not user.links and not user.sessions
            seat_missing = made and self._admission is not None and time.monotonic() >= seated
            if seat_missing:
                return None
            if user.link(link.provider, link.account_id) is None and not self._same_account(user, link):
                if user.links or user.sessions:
                    # The user exists but this account is not among its links: either it is being
                    # linked at this moment, or its claim was left behind.
                    return None
            if old is not None and old.user_id == user.id:
                held = sessions.find(self._vault.keys, user, old, self._policy, now)
                if held is not None:
                    user = sessions.without_session(user, held.id)
            return sessions.with_session(_with_link(user, link), session, self._policy, now)

        changed = await self.update(user_id, change, create=True, beside=beside)
        while seat_missing and self._admission is not None:
            seated = await self._admission.take(user_id)
            changed = await self.update(user_id, change, create=True, beside=beside)
        if changed is None:
            await self._release_if_dead(link, user_id)
        return changed

    @staticmethod
    def _same_account(user: User, link: Link) -> bool:
        # The same account through another table (a renamed provider) is still this user's.
        return any(Accounts._is_same(held, link) for held in user.links)

    @staticmethod
    def _is_same(held: Link, link: Link) -> bool:
        return held.identity == link.identity and held.account_id == link.account_id

    async def _release_if_dead(self, link: Link, user_id: str) -> None:
        found = await self._claim(link)
        if found is None or found[1].user_id != user_id:
            return
        key, record, version = found
        if time.time() - record.claimed_at < CLAIM_GRACE:
            raise GateError(
                "account_in_use",
                "this account is being linked to a user at this moment; try again in a minute",
            )
        try:
            await self._vault.delete(key, expect=version)
        except Conflict:
            return
        # Whoever deletes a claim looks for its link afterwards (see `_confirm`).
        after = await self._vault.user(user_id)
        if after is not None and self._same_account(after[0], link):
            with contextlib.suppress(GateError):
                await self._confirm(user_id, link)

    # -- link

    async def attach(
        self, user_id: str, session_id: str, link: Link, beside: Sequence[Change] = ()
    ) -> User:
        """Link an account to a signed-in user, and write `beside` together with it.

        Raises `GateError` 409 when another user owns it, 403 when the session that asked for it is gone.
        """
        owner, fresh = await self._owner(link, user_id)
        if owner != user_id:
            other = await self._vault.user(owner)
            if other is None or not self._same_account(other[0], link):
                await self._release_if_dead(link, owner)
                owner, fresh = await self._owner(link, user_id)
            if owner != user_id:
                raise GateError(
                    "account_in_use",
                    "this account is linked to another user; sign in with it, or unlink it there",
                )
        claimed = time.monotonic()

        def change(user: User) -> User | None:
            now = time.time()
            if time.monotonic() - claimed > CLAIM_GRACE / 2:
                raise GateError("store_unavailable", "the store was too slow; try again")
            if not any(held.id == session_id and self._policy.live(held, now) for held in user.sessions):
                return None
            if len(user.links) >= MAX_LINKS and user.link(link.provider, link.account_id) is None:
                raise GateError("not_allowed", f"a user can link {MAX_LINKS} accounts; unlink one first")
            return _with_link(user, link)

        async with self._claimed(user_id, link, fresh):
            await self._hooks.run("linked", user_id, link)
            user = await self.update(user_id, change, beside=beside)
            if user is None:
                raise GateError(
                    "session_mismatch", "you were signed out while linking; sign in and link again"
                )
        await self._confirm(user_id, link)
        return user

    @contextlib.asynccontextmanager
    async def _claimed(self, user_id: str, link: Link, fresh: bool) -> AsyncIterator[None]:
        """Give a claim that was made for this back when what it was made for is refused."""
        try:
            yield
        except GateError:
            if fresh:
                with contextlib.suppress(GateError):
                    await self._let_go(user_id, link)
            raise

    async def _confirm(self, user_id: str, link: Link) -> None:
        """Make sure that a link which was just written has its claim.

        An unlink at the same moment may have deleted it in between. Whoever writes a link looks for
        its claim afterwards, and whoever deletes a claim looks for its link, so one of the two sees
        the other. Raises `GateError` 409, without the link, when another user was faster.
        """
        owner, _ = await self._owner(link, user_id)
        if owner == user_id:
            return

        def change(user: User) -> User | None:
            kept = [held for held in user.links if not self._is_same(held, link)]
            return msgspec.structs.replace(user, links=kept)

        await self.update(user_id, change)
        raise GateError(
            "account_in_use",
            "this account is linked to another user; sign in with it, or unlink it there",
        )

    async def _let_go(self, user_id: str, link: Link) -> None:
        """Delete the user's claim of an account that is not linked any more."""
        released = False
        # More than one when `oauthgate keys rotate` is moving it to another hash.
        while (found := await self._claim(link)) is not None and found[1].user_id == user_id:
            try:
                await self._vault.delete(found[0], expect=found[2])
            except Conflict:
                return
            released = True
        if not released:
            return
        after = await self._vault.user(user_id)
        if after is not None and self._same_account(after[0], link):
            await self._confirm(user_id, link)

    async def detach(self, user_id: str, provider: str, account_id: str) -> Link | None:
        """Remove a link and then its claim; the link that was removed, or None."""
        removed: list[Link] = []

        def change(user: User) -> User | None:
            removed.clear()
            link = user.link(provider, account_id)
            if link is None:
                return None
            removed.append(link)
            links = [held for held in user.links if held is not link]
            return msgspec.structs.replace(user, links=links)

        await self.update(user_id, change)
        if not removed:
            return None
        link = removed[0]
        await self._let_go(user_id, link)
        await self._hooks.run("unlinked", user_id, link)
        return link

    async def owner_of(self, identity: str, account_id: str) -> str | None:
        """The user that owns an account, or None."""
        for key in self._vault.hash_keys("account", f"{identity}\x00{account_id}"):
            found = await self._vault.get(AccountRecord, f"account/{key}")
            if found is not None:
                return found[0].user_id
        return None

    async def _claim(self, link: Link) -> tuple[str, AccountRecord, int] | None:
        for digest in self._vault.hash_keys("account", f"{link.identity}\x00{link.account_id}"):
            key = f"account/{digest}"
            found = await self._vault.get(AccountRecord, key)
            if found is not None:
                return key, found[0], found[1]
        return None

    def _account_key(self, link: Link) -> str:
        return "account/" + self._vault.hash_key("account", f"{link.identity}\x00{link.account_id}")


def _with_link(user: User, link: Link) -> User:
    """The user with the link added, or with its new token, profile and scope."""
    held = user.link(link.provider, link.account_id)
    if held is None:
        return msgspec.structs.replace(user, links=[*user.links, link])
    if not link.token.access_token:
        # An ID token that was handed over tells of the account, and takes nothing from the link.
        renewed = msgspec.structs.replace(
            held, profile=link.profile.completed(held.profile), claims=link.claims
        )
        return msgspec.structs.replace(
            user, links=[renewed if item is held else item for item in user.links]
        )
    renewed = msgspec.structs.replace(
        link,
        label=held.label,
        default=held.default,
        linked_at=held.linked_at,
        extra=link.extra or held.extra,
        # A provider may give a refresh token at the first consent only.
        token=_keep_refresh_token(link, held),
    )
    return msgspec.structs.replace(
        user, links=[renewed if item is held else item for item in user.links]
    )


def _keep_refresh_token(link: Link, held: Link) -> Token:
    if link.token.refresh_token or not held.token.refresh_token:
        return link.token
    return msgspec.structs.replace(link.token, refresh_token=held.token.refresh_token)
