"""Sessions: who is signed in with this browser or API client.

The cookie holds the user's id and a 256-bit secret; the store a keyed hash of the secret, inside the
user's document. Idle and absolute timeouts are checked here at every use, so an ordinary request sets
no cookie and writes nothing; `last_seen` is moved on only once it is a good part of the idle timeout
old.
"""

from __future__ import annotations

import base64
import hmac
import math
import re
import secrets
from dataclasses import dataclass

import msgspec

from .records import Session, User
from .seal import Keys

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Lifetimes in seconds and how many sessions a user may have; the oldest go."""

    idle_timeout: float
    absolute_timeout: float
    max_sessions: int

    @property
    def touch_after(self) -> float:
        """How old `last_seen` gets before it is written again."""
        return min(self.idle_timeout / 10, 86400.0)

    def expires_at(self, session: Session) -> float:
        """When the session ends if nothing more happens (Unix seconds)."""
        return min(session.last_seen + self.idle_timeout, session.created + self.absolute_timeout)

    def live(self, session: Session, now: float) -> bool:
        return now < self.expires_at(session)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a session cookie or a bearer session token says: `user_id.secret`. Never shown.

    Of a session token that is a JWT (`api_tokens.py`) `secret` is the whole of it, and its signature has
    proved the session `session_id` until `expires_at` (Unix seconds).
    """

    user_id: str
    secret: str
    session_id: str = ""
    expires_at: float = math.inf

    def __repr__(self) -> str:
        return "Ticket()"

    @property
    def value(self) -> str:
        return self.secret if self.session_id else f"{self.user_id}.{self.secret}"


def new_user_id() -> str:
    """128 random bits, in 22 characters."""
    return secrets.token_urlsafe(16)


def parse_ticket(value: str | None) -> Ticket | None:
    """The ticket in a cookie or bearer token; None when it does not even look like one."""
    if value is None or len(value) != 66:
        return None
    user_id, dot, secret = value.partition(".")
    if not dot or not _ID.fullmatch(user_id) or not _SECRET.fullmatch(secret):
        return None
    return Ticket(user_id, secret)


def issue(
    keys: Keys, user_id: str, *, now: float, provider: str, account_id: str, sid: str = ""
) -> tuple[Ticket, Session]:
    """A new session of a user: the ticket for its owner, the record for the store."""
    ticket = Ticket(user_id, secrets.token_urlsafe(32))
    digest = keys.hash("session", ticket.value.encode())
    session = Session(
        id=_session_id(digest),
        secret_hash=digest,
        created=now,
        last_seen=now,
        provider=provider,
        account_id=account_id,
        sid=sid,
        key=keys.key_id,
    )
    return ticket, session


def _session_id(digest: bytes) -> str:
    # Shown to its owner to end one of several sessions; says nothing about the secret.
    return base64.urlsafe_b64encode(digest[:9]).decode()


def find(keys: Keys, user: User, ticket: Ticket, policy: SessionPolicy, now: float) -> Session | None:
    """The live session that the ticket proves, compared in constant time."""
    if ticket.session_id:
        named = [held for held in user.sessions if held.id == ticket.session_id]
        return named[0] if named and now < ticket.expires_at and policy.live(named[0], now) else None
    secret = ticket.value.encode()
    # Nearly always the first key's hash fits; the others are only made when it does not.
    found = _with_hash(user, keys.hash("session", secret))
    if found is None and keys.several:
        for digest in keys.hashes("session", secret)[1:]:
            found = found or _with_hash(user, digest)
    return found if found is not None and policy.live(found, now) else None


def _with_hash(user: User, digest: bytes) -> Session | None:
    for session in user.sessions:
        if hmac.compare_digest(session.secret_hash, digest):
            return session
    return None


def with_session(user: User, session: Session, policy: SessionPolicy, now: float) -> User:
    """The user with one more session, without the dead ones and within the bound."""
    live = [held for held in user.sessions if policy.live(held, now)]
    live.sort(key=lambda held: held.last_seen)
    kept = live[max(0, len(live) - policy.max_sessions + 1) :]
    return msgspec.structs.replace(user, sessions=[*kept, session])


def without_session(user: User, session_id: str) -> User:
    kept = [held for held in user.sessions if held.id != session_id]
    return msgspec.structs.replace(user, sessions=kept)


def csrf_token(keys: Keys, session: Session) -> str:
    """The token that state-changing requests of this session carry: a keyed hash, nothing stored."""
    digest = keys.hash("csrf", session.secret_hash)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def csrf_valid(keys: Keys, session: Session, token: str) -> bool:
    """Whether a token is this session's; one of a page from before a new secret still is."""
    expected = [
        base64.urlsafe_b64encode(digest).rstrip(b"=")
        for digest in keys.hashes("csrf", session.secret_hash)
    ]
    given = token.encode("utf-8", "replace")
    return any(hmac.compare_digest(each, given) for each in expected)
