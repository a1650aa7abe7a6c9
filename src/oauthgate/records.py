"""What is kept: the document of a user, and the small records around it.

One document per user holds all that a request needs, so one point read decides a request. Every
struct is frozen: the decoded form of an unchanged record is shared between requests. A record says
which schema it was written with; one of a newer schema is refused, never half understood.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import field

from .errors import GateError
from .structs import decoder_of

SCHEMA = 1
#: Bytes of a provider's raw profile answer that are kept; a larger one is not kept at all.
MAX_RAW = 16 * 1024

LinkState = Literal["active", "reauth_required"]


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The token of a link. `expires_at` and `received_at` are Unix times in seconds.

    `token_secret` is OAuth 1.0a's; `refresh_token`, `id_token` and `expires_at` are OAuth 2's. With a
    `dpop_key` (`protocols/dpop.py`) the tokens are bound to that private key, which stays with the
    link as long as they do.
    """

    access_token: str
    token_secret: str = ""
    refresh_token: str = ""
    token_type: str = "Bearer"  # noqa: S105
    expires_at: float | None = None
    received_at: float = 0.0
    id_token: str = ""
    dpop_key: str = ""

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at!r})"


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An account as every provider's answer is normalised. Only `id` is sure to be there.

    `id` and the provider (or issuer) are who somebody is. `email` is for display unless
    `email_verified` is true, and never decides whose account something is.
    """

    id: str
    username: str | None = None
    name: str | None = None
    email: str | None = None
    email_verified: bool = False
    picture: str | None = None
    gender: str | None = None

    def completed(self, other: Profile) -> Profile:
        """This profile, with what it lacks from another one of the same account."""
        names = [name for name in self.__struct_fields__ if getattr(self, name) is None]
        if "email" in names:
            names.append("email_verified")
        return msgspec.structs.replace(self, **{name: getattr(other, name) for name in names})


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A provider account of a user. `raw` is the provider's own answer as JSON; `claims` says which of
    those that `[access]` asks for held at the last sign-in (`access_rules.py`)."""

    provider: str
    identity: str
    account_id: str
    profile: Profile
    token: Token
    raw: bytes = b"{}"
    scope: list[str] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)
    claims: dict[str, bool] = field(default_factory=dict)
    state: LinkState = "active"
    label: str = ""
    default: bool = False
    linked_at: float = 0.0

    def __repr__(self) -> str:
        return f"Link({self.provider!r}, {self.state})"


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signed-in browser or API client. The store has a keyed hash of its secret only.

    `created` and `last_seen` are Unix times in seconds; `provider`, `account_id` and `sid` say how it
    signed in (OpenID Connect's session id at the provider). `key` is the id of the key of the hash; one
    from before that was written down has none.
    """

    id: str
    secret_hash: bytes
    created: float
    last_seen: float
    provider: str = ""
    account_id: str = ""
    sid: str = ""
    key: bytes = b""

    def __repr__(self) -> str:
        return f"Session(provider={self.provider!r})"


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The person: an opaque id of ours, what is linked, who is signed in."""

    schema: int = 1  # absent means 1 for ever: default values are not written
    id: str
    created: float
    links: list[Link] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"User({len(self.links)} links, {len(self.sessions)} sessions)"

    def links_of(self, provider: str) -> list[Link]:
        """The accounts of one provider, the default one first."""
        found = [link for link in self.links if link.provider == provider]
        return sorted(found, key=lambda link: not link.default) if len(found) > 1 else found

    def link(self, provider: str, account_id: str) -> Link | None:
        for link in self.links:
            if link.provider == provider and link.account_id == account_id:
                return link
        return None


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which user owns a provider account, and since when (Unix seconds)."""

    schema: int = 1  # absent means 1 for ever: default values are not written
    user_id: str
    claimed_at: float


class UsedFlow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The single-use marker of a flow. While `done` is false its callback is still running.

    A second delivery of the same callback waits for the first and is given a session of its own;
    afterwards the marker only says which user the flow belonged to, and where it went.
    """

    schema: int = 1  # absent means 1 for ever: default values are not written
    done: bool = False
    user_id: str = ""
    account_id: str = ""
    target: str = ""

    def __repr__(self) -> str:
        return f"UsedFlow(done={self.done})"


class ProviderSession(msgspec.Struct, frozen=True, kw_only=True):
    """Whose session a provider's `sid` is (OpenID Connect Back-Channel and Front-Channel Logout)."""

    schema: int = 1
    user_id: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who is refreshing a link's token."""

    schema: int = 1  # absent means 1 for ever: default values are not written
    holder: str


class Seats(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a seat where there is a limit of users: user id → since when (Unix seconds), 0 for one
    who was there before he was counted (`access_seats.py`)."""

    schema: int = 1
    seats: dict[str, int]

    def __repr__(self) -> str:
        return f"Seats({len(self.seats)})"


R = TypeVar("R", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]] = {
    kind: decoder_of(kind) for kind in (User, AccountRecord, UsedFlow, ProviderSession, Lease, Seats)
}


def encode(record: msgspec.Struct) -> bytes:
    """The bytes that are sealed."""
    return _encoder.encode(record)


def decode(kind: type[R], raw: bytes) -> R:
    """A record from its opened bytes. Raises `GateError` 503 for one that this version cannot read."""
    try:
        record: R = _decoders[kind].decode(raw)
    except msgspec.MsgspecError:
        raise GateError("record_unreadable", "a record cannot be decoded") from None
    if getattr(record, "schema", SCHEMA) > SCHEMA:
        raise GateError(
            "record_unreadable", "a record was written by a newer oauthgate: upgrade this one"
        )
    return record
