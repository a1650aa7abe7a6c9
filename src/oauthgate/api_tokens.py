"""The session tokens of API clients: opaque, or a signed JWT (`api_token` in `[session]`).

An opaque one is what the cookie holds. A JWT (RFC 7519, typed and with the claims of RFC 9068) says
whose session it is and until when, so that another service can check it without asking us. Here it is
only believed while the session that it names stands in its user's document: signing out ends it as well.

Which key may have signed, and how, is the configuration's: a token whose header is not letter for letter
one that we write (`typ`, `alg`, `kid`, and nothing else) is somebody else's, and goes to the application
untouched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .protocols import jose
from .records import Session
from .seal import Keys
from .sessions import SessionPolicy, Ticket, parse_ticket

if TYPE_CHECKING:
    from .config import Config
    from .protocols.joserfc_facade import Key

TYPE = "at+jwt"
#: Characters of a token of ours at most; a longer one is not looked at.
MAX_TOKEN = 2048
#: Headers of other issuers' tokens that are remembered as not ours.
MAX_HEADERS = 64
_USER = re.compile(r"[A-Za-z0-9_-]{22}")
_SESSION = re.compile(r"[A-Za-z0-9_-]{12}")
#: A token that is ours and proves nothing: forged, expired, or for another audience.
_DEAD = Ticket("", "", session_id="-", expires_at=0.0)


@dataclass(frozen=True, slots=True)
class Signer:
    """One key: what it signs with, and how it is called in the header."""

    kid: str
    algorithm: str
    key: Key | None = field(default=None, repr=False)
    secret: str = field(default="", repr=False)

    @property
    def header(self) -> dict[str, Any]:
        return {"typ": TYPE, "alg": self.algorithm, "kid": self.kid}


class ApiTokens:
    """Makes and reads the session tokens of one gate."""

    def __init__(self, config: Config, keys: Keys, policy: SessionPolicy) -> None:
        self._policy = policy
        self._jwt = config.api_token == "jwt"  # noqa: S105 - a kind of token
        self._issuer = config.base_url
        self._audience = config.api_token_audience
        self._lifetime = config.api_token_lifetime
        self._signers = [_signer(pem) for pem in config.api_token_keys] or [
            Signer(kid, "HS256", secret=secret) for kid, secret in keys.token_keys.items()
        ]
        self._headers: dict[str, Signer | None] = {}

    def __repr__(self) -> str:
        return f"ApiTokens({'jwt' if self._jwt else 'opaque'})"

    def issue(self, ticket: Ticket, session: Session, now: float) -> tuple[str, int]:
        """The token of a new session, and the seconds that it is good for when nothing more happens.

        Of a JWT's session nobody is given the ticket, so the token's own end is the end.
        """
        if not self._jwt:
            return ticket.value, int(self._policy.expires_at(session) - now)
        expires_at = min(now + self._lifetime, self._policy.expires_at(session))
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": ticket.user_id,
            "client_id": self._issuer,
            "jti": session.id,
            "sid": session.id,
            "iat": int(now),
            "exp": int(expires_at),
        }
        by = self._signers[0]
        token = jose.sign(claims, by.key or by.secret, by.algorithm, by.kid, TYPE)
        return token, int(expires_at) - int(now)

    def read(self, token: str) -> Ticket | None:
        """What a bearer token of ours says; None for one that is not ours."""
        ticket = parse_ticket(token)
        if ticket is not None or not self._jwt or len(token) > MAX_TOKEN or token.count(".") != 2:
            return ticket
        signer = self._signer_of(token)
        if signer is None:
            return None
        keys = [signer.key] if signer.key is not None else []
        try:
            claims = jose.verify(token, [signer.algorithm], keys, signer.secret).claims
        except jose.TokenRefused:
            return _DEAD
        return self._ticket(token, claims)

    def _signer_of(self, token: str) -> Signer | None:
        segment = token.partition(".")[0]
        try:
            return self._headers[segment]
        except KeyError:
            pass
        try:
            header = jose.header_of(token)
        except jose.TokenRefused:
            return None
        signer = next((each for each in self._signers if each.header == header), None)
        if len(self._headers) >= MAX_HEADERS:
            self._headers.clear()
        self._headers[segment] = signer
        return signer

    def _ticket(self, token: str, claims: dict[str, Any]) -> Ticket:
        user_id, session_id, expires_at = (claims.get(name) for name in ("sub", "sid", "exp"))
        if (
            claims.get("iss") != self._issuer
            or claims.get("aud") != self._audience
            or not isinstance(user_id, str)
            or not _USER.fullmatch(user_id)
            or not isinstance(session_id, str)
            or not _SESSION.fullmatch(session_id)
            or not isinstance(expires_at, int)
        ):
            return _DEAD
        return Ticket(user_id, token, session_id=session_id, expires_at=float(expires_at))

    def jwks(self) -> dict[str, Any] | None:
        """The public keys (RFC 7517 section 5) for who checks our JWTs; None when there are none."""
        if not self._jwt or self._signers[0].key is None:
            return None
        return {
            "keys": [
                {**each.key.as_dict(private=False), "kid": each.kid, "use": "sig", "alg": each.algorithm}
                for each in self._signers
                if each.key is not None
            ]
        }


def _signer(pem: str) -> Signer:
    kid = jose.load_signing_key(pem).thumbprint()  # RFC 7638
    return Signer(kid, "ES256", jose.load_signing_key(pem, kid))
