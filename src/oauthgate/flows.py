"""A flow: one pending authorization, kept in a sealed cookie of its own.

Nothing is stored on the server until a callback comes back, so a flood of anonymous logins writes
nothing; the cookie binds the flow to the browser that started it (RFC 9700 section 4.7.1), and tabs
do not disturb each other because each flow has a cookie named by the hash of its state.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import field

from .cookies import MAX_COOKIE, delete_cookie, find_prefixed, set_cookie
from .errors import GateError, SealError
from .seal import Keys, spelt
from .structs import decoder_of

#: Seconds that somebody may take at the provider.
LIFETIME = 20 * 60
#: Pending flows per browser; with more the oldest is dropped.
MAX_FLOWS = 5
#: Bytes of all our flow cookies together: most servers refuse a request with 8 KB of headers.
MAX_BYTES = 6 * 1024


class Flow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, array_like=True):
    """What must be remembered between the two redirects.

    `state` is the `state` of OAuth 2 and the request token of OAuth 1.0a; `secret` the code verifier,
    or the request token's secret; `dpop_key` the private key that the tokens will be bound to, which
    the code is bound to already. A link flow names the user and session it was started from.
    """

    provider: str
    identity: str
    state: str
    expires_at: int
    purpose: Literal["login", "link"]
    redirect_uri: str
    secret: str = ""
    nonce: str = ""
    target: str = "/"
    user_id: str = ""
    session_id: str = ""
    scope: list[str] = field(default_factory=list)
    then: list[str] = field(default_factory=list)
    carry: dict[str, str] = field(default_factory=dict)
    dpop_key: str = ""

    def __repr__(self) -> str:
        return f"Flow({self.provider!r}, {self.purpose})"


_decoder = decoder_of(Flow)


def random_value() -> str:
    """256 random bits in 43 URL-safe characters: states, nonces and code verifiers."""
    return secrets.token_urlsafe(32)


def new_nonce(keys: Keys) -> str:
    """A nonce for a flow of ours: 128 random bits, and a mark that only we can make and tell."""
    value = secrets.token_urlsafe(16)
    return value + spelt(keys.hash("nonce", value.encode()))


def own_nonce(keys: Keys, nonce: str) -> bool:
    """Whether a nonce was made by `new_nonce` here."""
    value, mark = nonce[:22], nonce[22:].encode("utf-8", "replace")
    digests = keys.hashes("nonce", value.encode("utf-8", "replace"))
    return any(secrets.compare_digest(spelt(digest).encode(), mark) for digest in digests)


def cookie_name(prefix: str, state: str) -> str:
    """The cookie of the flow with this state."""
    digest = hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()
    return prefix + base64.urlsafe_b64encode(digest[:12]).decode()


class FlowCookies:
    """Reads and writes the flow cookies of one site."""

    def __init__(self, keys: Keys, prefix: str, *, secure: bool) -> None:
        self._keys = keys
        self._prefix = prefix
        self._secure = secure

    def start(self, flow: Flow, cookie_headers: Iterable[str], *, cross_site_post: bool) -> list[str]:
        """The `Set-Cookie` values that begin `flow`, and end the oldest ones past the bound.

        `cross_site_post` is for a provider that answers with a POST from its own site, on which a
        browser sends no Lax cookie (OAuth 2.0 Form Post Response Mode).
        """
        name = cookie_name(self._prefix, flow.state)
        sealed = self._keys.seal(f"flow/{name}", msgspec.msgpack.encode(flow))
        # The time in front lets the oldest be found without opening any of them.
        value = f"{flow.expires_at:x}.{base64.urlsafe_b64encode(sealed).rstrip(b'=').decode()}"
        if len(name) + len(value) > MAX_COOKIE - 200:
            raise GateError(
                "invalid_request", "the values carried through the flow are too long for a cookie"
            )
        headers = [
            set_cookie(
                name,
                value,
                secure=self._secure or cross_site_post,
                max_age=LIFETIME,
                same_site="None" if cross_site_post else "Lax",
            )
        ]
        pending = sorted(
            find_prefixed(cookie_headers, self._prefix).items(), key=lambda item: _started(item[1])
        )
        size = len(name) + len(value)
        for position, (held, held_value) in enumerate(reversed(pending), start=1):
            size += len(held) + len(held_value)
            if (position >= MAX_FLOWS or size > MAX_BYTES) and held != name:
                headers.append(delete_cookie(held, secure=self._secure))
        return headers

    def find(self, state: str, cookie_headers: Iterable[str], now: float) -> Flow | None:
        """The flow of this browser with this state, or None. Raises `GateError` when it has expired."""
        name = cookie_name(self._prefix, state)
        value = find_prefixed(cookie_headers, name).get(name)
        if value is None:
            return None
        try:
            encoded = value.partition(".")[2]
            sealed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            flow = _decoder.decode(self._keys.open(f"flow/{name}", sealed))
        except (ValueError, SealError, msgspec.MsgspecError):
            return None
        if not secrets.compare_digest(flow.state.encode(), state.encode("utf-8", "surrogatepass")):
            return None
        if flow.expires_at <= now:
            raise GateError("flow_expired", "the sign-in took longer than 20 minutes; start again")
        return flow

    def end(self, flow: Flow, *, cross_site_post: bool) -> str:
        """The `Set-Cookie` value that removes a flow's cookie."""
        return delete_cookie(
            cookie_name(self._prefix, flow.state),
            secure=self._secure or cross_site_post,
            same_site="None" if cross_site_post else "Lax",
        )


def _started(value: str) -> int:
    try:
        return int(value.partition(".")[0], 16)
    except ValueError:
        return 0
