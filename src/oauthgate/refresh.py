"""Fresh tokens: one refresh request, whoever asks and however many ask at once.

In a process a lock, across processes a lease in the store. The holder re-reads under the lease before
it refreshes, writes by version, and everybody else gets its result. A rotating refresh token is dead
once it was used (RFC 9700 section 4.14.2), so a second request would not only be waste: it would end
the link.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass

import msgspec

from .accounts import Accounts
from .errors import GateError, NotLinked, RefreshFailed
from .hooks import HookName, Hooks
from .io import IO, Heartbeat
from .leases import LEASE, Leases
from .outbound import Outbound
from .protocols import jose, oauth2, oidc
from .protocols.discovery import Directory
from .protocols.tokens import TokenAnswer, TokenError
from .providers import Provider
from .records import Link, Token
from .telemetry import count, span
from .unsaved import Unsaved
from .vault import Vault

log = logging.getLogger("oauthgate.refresh")

#: Seconds between two looks at somebody else's refresh.
POLL = 0.05
#: Seconds after a failed refresh in which no new one is tried.
BACK_OFF = 2.0
#: Seconds in which a token that was refused right after its refresh causes no further one: such an API
#: says 401 where it means something else, and a refresh for every call would help nobody.
USELESS = 30.0


def needs_refresh(provider: Provider, token: Token, now: float) -> bool:
    """Whether the token is due (`now` in Unix seconds). One without a known end never is."""
    if token.expires_at is None or not token.refresh_token:
        return False
    lifetime = max(0.0, token.expires_at - token.received_at)
    # A clock that was set back must not make a token look eternal.
    if token.received_at > now + lifetime + 300:
        return True
    return token.expires_at - min(provider.refresh_leeway, lifetime / 4) <= now


def expired(token: Token, now: float) -> bool:
    """Whether the token's own end has passed."""
    return token.expires_at is not None and token.expires_at <= now


def lacks_key(provider: Provider, token: Token) -> bool:
    """Whether a token is one from before its provider got `dpop = true`: whoever reads it can use it,
    which is what the setting forbids, so the person has to link anew."""
    return provider.dpop and not token.dpop_key


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a refresh: the link or an error, and the hook that is to be told."""

    link: Link | None = None
    event: HookName | None = None
    error: NotLinked | RefreshFailed | None = None


class Refresher:
    """Keeps the tokens of links fresh. `count` is the number of refresh requests sent; `proofs` makes
    those of tokens that are bound to a key."""

    def __init__(
        self,
        io: IO,
        vault: Vault,
        accounts: Accounts,
        outbound: Outbound,
        directory: Directory,
        hooks: Hooks,
    ) -> None:
        self._hooks = hooks
        self._io = io
        self._vault = vault
        self._leases = Leases(vault)
        self._accounts = accounts
        self._outbound = outbound
        self.proofs = outbound.proofs
        self._directory = directory
        self._failed: dict[str, float] = {}
        self._useless: dict[str, float] = {}
        self._unsaved = Unsaved(io, accounts)
        self.count = 0

    async def fresh(
        self, provider: Provider, user_id: str, link: Link, *, rejected: bool = False
    ) -> Link:
        """`link` with a token that can be sent now.

        `rejected` says that the API refused the token that `link` holds. Raises `NotLinked` when only
        the person can help, `RefreshFailed` when the provider cannot be asked and the old token is no
        longer good.
        """
        if (
            not rejected
            and not needs_refresh(provider, link.token, time.time())
            and not lacks_key(provider, link.token)
        ):
            return link
        key = f"{user_id}/{provider.name}/{self._vault.hash_key('link', link.account_id)}"
        if rejected and self._lately(self._useless, key, USELESS):
            return link  # a new token was refused a moment ago as this one was: that is the answer
        # Shielded: a visitor who goes away must not take a token request with him, whose answer is
        # the only copy of the new refresh token.
        outcome = await self._io.shield(self._outcome(key, provider, user_id, link, rejected))
        if isinstance(outcome, Link):
            return outcome
        # Hooks run out here, where no lock and no lease is held: one that calls the API itself, or is
        # slow, must not stop anybody.
        if outcome.event is not None and outcome.link is not None:
            await self._hooks.run(outcome.event, user_id, outcome.link)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.link is not None  # noqa: S101 - for the type checker: an outcome has one of the two
        return outcome.link

    def note_useless(self, provider: Provider, user_id: str, link: Link) -> None:
        """Remember that a token which was just refreshed was refused like the one before."""
        key = f"{user_id}/{provider.name}/{self._vault.hash_key('link', link.account_id)}"
        _remember(self._useless, key)

    async def _outcome(
        self, key: str, provider: Provider, user_id: str, link: Link, rejected: bool
    ) -> Link | _Outcome:
        try:
            return await self._single_flight(key, provider, user_id, link, rejected)
        except (NotLinked, RefreshFailed) as error:
            return _Outcome(error=error)

    async def _single_flight(
        self, key: str, provider: Provider, user_id: str, link: Link, rejected: bool
    ) -> Link | _Outcome:
        async with self._io.lock(f"refresh/{key}"):
            await self._unsaved.save_old(key, user_id)
            current = await self._current(user_id, link)
            if lacks_key(provider, current.token):
                return await self._end(user_id, current)
            if self._done_by_another(provider, link, current, rejected):
                return current
            if not current.token.refresh_token:
                return await self._without_refresh_token(user_id, current)
            if self._lately(self._failed, key, BACK_OFF):
                return self._old_or_failed(provider, current, rejected)
            # Before the lease is taken: a provider that is slow to tell where its endpoints are must
            # not let it run out.
            try:
                complete = await self._directory.complete(provider)
            except GateError as error:
                return self._fail(key, provider, current, rejected, error)
            holder = secrets.token_urlsafe(12)
            # Without a keyed hash: while secrets change their order, everybody must know it by one name.
            lease = f"lease/{user_id}/{provider.name}"
            waited = False
            give_up = time.monotonic() + LEASE + provider.timeout
            while not await self._leases.take(lease, holder):
                if not waited:
                    waited = True
                    count("oauthgate.refresh.waits", provider=provider.name)
                await self._io.sleep(POLL)
                current = await self._current(user_id, link)
                if self._done_by_another(provider, link, current, rejected):
                    return current
                if time.monotonic() > give_up:
                    return self._old_or_failed(provider, current, rejected)
            try:
                current = await self._current(user_id, link)
                if self._done_by_another(provider, link, current, rejected):
                    return current
                return await self._refresh(key, lease, holder, complete, user_id, current, rejected)
            finally:
                await self._leases.release(lease, holder)

    @staticmethod
    def _done_by_another(provider: Provider, asked: Link, current: Link, rejected: bool) -> bool:
        if rejected and current.token.access_token == asked.token.access_token:
            return False
        return not needs_refresh(provider, current.token, time.time())

    async def _current(self, user_id: str, link: Link) -> Link:
        found = await self._vault.user(user_id)
        current = found[0].link(link.provider, link.account_id) if found else None
        if current is None:
            raise NotLinked(link.provider)
        if current.state != "active":
            raise NotLinked(link.provider, reason="reauth_required")
        return current

    async def _refresh(
        self,
        key: str,
        lease: str,
        holder: str,
        provider: Provider,
        user_id: str,
        link: Link,
        rejected: bool,
    ) -> Link | _Outcome:
        async def beat() -> None:
            await self._leases.renew(lease, holder)

        # The last look before the one request that must not be sent twice (fencing).
        if not await self._leases.renew(lease, holder):
            return self._fail(key, provider, link, rejected, _lost_lease(provider))
        ended, answer, problem = False, None, None
        try:
            self.count += 1
            count("oauthgate.refreshes", provider=provider.name)
            with span("oauthgate.refresh", provider=provider.name):
                answer = await oauth2.refresh(
                    self._outbound, provider, link.token, time.time(), Heartbeat(LEASE / 3, beat)
                )
        except GateError as error:
            ended = isinstance(error, TokenError) and error.error == "invalid_grant"
            problem = error.with_traceback(None)
        # Out here, because what is raised in a handler carries the failed request along as its context,
        # and an error tracker that sends the values of all locals would send the refresh token.
        if ended:
            return await self._end(user_id, link)
        if answer is None or problem is not None:
            return self._fail(key, provider, link, rejected, problem or _lost_lease(provider))
        if provider.protocol == "oidc" and answer.token.id_token:
            problem = await self._check_id_token(provider, link, answer)
            if problem is not None and problem.code != "provider_unavailable":
                return await self._end(user_id, link)
        # The old refresh token is used up, so the new one is kept whatever else cannot be told yet.
        doubtful = problem is not None
        fresh = await self._unsaved.save(
            key, user_id, link, lambda held: _renewed(held, answer, refresh_token_only=doubtful)
        )
        if fresh is None:
            # Unlinked meanwhile. What was just issued is nobody's, so it is given back.
            if oauth2.can_revoke(provider):
                await oauth2.revoke(self._outbound, provider, answer.token)
            raise NotLinked(provider.name)
        if problem is not None:
            return self._fail(key, provider, fresh, rejected, problem)
        self._failed.pop(key, None)
        return _Outcome(link=fresh, event="refreshed")

    async def _end(self, user_id: str, link: Link) -> Link | _Outcome:
        """The grant is over: say so in the link, unless somebody else refreshed meanwhile."""
        after = await self._accounts.replace_link(
            user_id, link, lambda held: msgspec.structs.replace(held, state="reauth_required")
        )
        if after is None:
            raise NotLinked(link.provider)  # unlinked meanwhile, which is why the grant has ended
        if after.state == "active":
            return after
        log.warning("the grant at %s has ended; the user must link it again", link.provider)
        count("oauthgate.errors", provider=link.provider, code="reauth_required")
        error = NotLinked(link.provider, reason="reauth_required")
        return _Outcome(link=after, event="reauth_required", error=error)

    async def _without_refresh_token(self, user_id: str, link: Link) -> Link | _Outcome:
        if not expired(link.token, time.time()):
            return link
        return await self._end(user_id, link)

    async def _check_id_token(
        self, provider: Provider, link: Link, answer: TokenAnswer
    ) -> GateError | None:
        """What is wrong with a refreshed ID token (OpenID Connect Core 12.2), or None.

        `provider_unavailable` means that it cannot be told now, because the keys cannot be had or the
        key it was signed with is not known yet.
        """
        code, why = "provider_misbehaved", ""
        try:
            verified = await oidc.verify(self._directory, provider, answer.token.id_token)
            oidc.check_claims(provider, verified.claims, time.time())
            same = (oidc.identity_of(provider, verified.claims), verified.claims.get("sub"))
            if same != (link.identity, link.account_id):
                raise jose.TokenRefused("it is of another account")
        except jose.UnknownKey as error:
            code, why = "provider_unavailable", str(error)
        except jose.TokenRefused as error:
            why = str(error)
        except GateError as error:
            code, why = "provider_unavailable", error.description
        if not why:
            return None
        log.error("the refreshed ID token of %s is refused: %s", provider.name, why)
        return GateError(code, f"the refreshed ID token is refused: {why}", provider=provider.name)

    def _fail(self, key: str, provider: Provider, link: Link, rejected: bool, error: GateError) -> Link:
        log.warning("the token of %s could not be refreshed: %s", provider.name, error)
        count("oauthgate.errors", provider=provider.name, code=error.code)
        _remember(self._failed, key)
        return self._old_or_failed(provider, link, rejected)

    @staticmethod
    def _lately(times: dict[str, float], key: str, seconds: float) -> bool:
        at = times.get(key)
        return at is not None and time.monotonic() - at < seconds

    @staticmethod
    def _old_or_failed(provider: Provider, link: Link, rejected: bool) -> Link:
        if not rejected and not expired(link.token, time.time()):
            return link
        raise RefreshFailed(
            f"the token of {provider.title} has expired and a new one cannot be had at the moment"
        )


def _renewed(held: Link, answer: TokenAnswer, *, refresh_token_only: bool) -> Link:
    """The link with its new token; what the answer leaves out stays as it was (RFC 6749 section 6)."""
    refresh_token = answer.token.refresh_token or held.token.refresh_token
    if refresh_token_only:
        token = msgspec.structs.replace(held.token, refresh_token=refresh_token)
        return msgspec.structs.replace(held, token=token)
    token = msgspec.structs.replace(
        answer.token,
        refresh_token=refresh_token,
        id_token=answer.token.id_token or held.token.id_token,
    )
    scope = held.scope if answer.scope is None else answer.scope
    return msgspec.structs.replace(held, token=token, scope=scope, state="active")


def _lost_lease(provider: Provider) -> GateError:
    return GateError(
        "provider_unavailable", "another worker took over the refresh", provider=provider.name
    )


def _remember(times: dict[str, float], key: str) -> None:
    if len(times) > 10_000:
        times.clear()
    times[key] = time.monotonic()
