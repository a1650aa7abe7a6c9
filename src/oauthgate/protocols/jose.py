"""Signed tokens (JWS, RFC 7515; JWT, RFC 7519; hardened as RFC 8725 says).

Which algorithm may have signed comes from the configuration, never from the token; which key, from
the provider's own key set or the client secret, never from the token's header.
"""

from __future__ import annotations

import base64
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import strict_json

if TYPE_CHECKING:
    from .joserfc_facade import Key

#: Characters of a token that are looked at; a larger one is refused unread.
MAX_TOKEN = 64 * 1024
MAX_KEYS = 50
_SEGMENTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: Header members that would choose a key or change what is signed, for us (RFC 8725 sections 3.1, 3.5).
_REFUSED_HEADERS = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "zip")
_FAMILIES = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA",
    "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "P-256", "ES384": "P-384", "ES512": "P-521",
    "EdDSA": "OKP", "Ed25519": "OKP",
    "HS256": "oct", "HS384": "oct", "HS512": "oct",
}  # fmt: skip
_HASH_BITS = {"256": 256, "384": 384, "512": 512}
ALGORITHMS = frozenset(_FAMILIES)


class TokenRefused(Exception):
    """A signed token is not to be believed. The message holds nothing of the token's content."""


class UnknownKey(TokenRefused):
    """No key of the set fits: worth one new look at the provider's key set."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A token whose signature holds; its claims are still to be checked."""

    header: dict[str, Any] = field(repr=False)
    claims: dict[str, Any] = field(repr=False)


def read_key_set(document: dict[str, Any]) -> list[Key]:
    """The usable signing keys of a JWK Set (RFC 7517 section 5).

    Symmetric keys, encryption keys and RSA keys under 2048 bits are left out: a public document must
    not be able to introduce any of them.
    """
    from .joserfc_facade import JoseError, RSAKey, import_key

    keys: list[Key] = []
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise strict_json.StrictJSONError("expected a JWK Set")
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        operations = entry.get("key_ops")
        if isinstance(operations, list) and "verify" not in operations:
            continue
        if entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                key = import_key(entry)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey) and key.public_key.key_size < 2048:
            continue
        keys.append(key)
    return keys


def header_of(token: str) -> dict[str, Any]:
    """The header of a compact JWS, read strictly. Raises `TokenRefused`."""
    if len(token) > MAX_TOKEN or not _SEGMENTS.fullmatch(token):
        raise TokenRefused("not a signed token of three parts, or too long")
    try:
        header = strict_json.loads_object(_decode(token.partition(".")[0]))
    except (strict_json.StrictJSONError, ValueError):
        raise TokenRefused("the token's header is not a JSON object") from None
    for name in _REFUSED_HEADERS:
        if name in header:
            raise TokenRefused(f"the token's header has the member {name}, which is not accepted")
    return header


def verify(
    token: str,
    algorithms: list[str],
    keys: list[Key],
    secret: str = "",
    header: dict[str, Any] | None = None,
) -> Verified:
    """Check the signature of a compact JWT.

    `keys` are the provider's, `secret` the client secret for the HS family; `header` is what
    `header_of` said of this token, where it was asked already. Raises `TokenRefused`; `UnknownKey` when
    none of the keys could have signed.
    """
    from .joserfc_facade import JoseError, Registry, jws

    header = header_of(token) if header is None else header
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in ALGORITHMS:
        shown = algorithm if isinstance(algorithm, str) and algorithm in ALGORITHMS else "another way"
        raise TokenRefused(f"signed with {shown}, expected {' or '.join(algorithms)}")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenRefused("the token's kid is not a string")
    candidates = _candidates(algorithm, kid, keys, secret)
    if not candidates:
        raise UnknownKey("no key of the provider's key set fits the token")
    for key in candidates:
        try:
            signed = jws.deserialize_compact(token, key, registry=Registry(algorithm))
        except (JoseError, ValueError, TypeError):
            continue
        return Verified(header, _claims(signed.payload))
    if kid is None or _FAMILIES[algorithm] == "oct":
        raise UnknownKey("the token's signature does not verify with any key")
    raise TokenRefused("the token's signature does not verify")


def _candidates(algorithm: str, kid: str | None, keys: list[Key], secret: str) -> list[Key]:
    from .joserfc_facade import OctKey

    family = _FAMILIES[algorithm]
    if family == "oct":
        return [OctKey.import_key(secret)] if secret else []
    fitting = [
        key
        for key in keys
        if _family(key) == family and key.dict_value.get("alg", algorithm) == algorithm
    ]
    if kid is None:
        return fitting
    return [key for key in fitting if key.dict_value.get("kid") == kid]


def _family(key: Key) -> str:
    from .joserfc_facade import ECKey, OKPKey, RSAKey

    if isinstance(key, RSAKey):
        return "RSA"
    if isinstance(key, ECKey):
        return key.curve_name
    if isinstance(key, OKPKey):
        return "OKP"
    return "oct"


def _claims(payload: bytes | None) -> dict[str, Any]:
    try:
        return strict_json.loads_object(payload or b"")
    except strict_json.StrictJSONError:
        raise TokenRefused("the token's claims are not one JSON object") from None


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def half_hash(value: str, algorithm: str) -> str | None:
    """`at_hash` of a token (OpenID Connect Core 3.1.3.6), or None where no hash is known for it."""
    import hashlib

    bits = _HASH_BITS.get(algorithm[-3:])
    if bits is None:
        if algorithm != "EdDSA" and algorithm != "Ed25519":
            return None
        bits = 512  # Ed25519 hashes with SHA-512
    digest = hashlib.new(f"sha{bits}", value.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def load_signing_key(pem: str, kid: str = "") -> Key:
    """A private key in PEM, to be known by this `kid`. Raises `ValueError`."""
    from .joserfc_facade import ECKey, JoseError, OKPKey, RSAKey

    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return kind.import_key(pem, {"kid": kid} if kid else None)
        except (JoseError, ValueError, TypeError):
            continue
    raise ValueError("expected a private key in PEM: RSA, EC or Ed25519")


def algorithm_for(key: Key) -> str:
    """The usual algorithm of a key's kind."""
    return {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "OKP": "EdDSA"}[
        _family(key)
    ]


def sign(
    claims: dict[str, Any],
    key_or_secret: Key | str,
    algorithm: str,
    kid: str = "",
    typ: str = "JWT",
) -> str:
    """A compact JWT of these claims."""
    from .joserfc_facade import OctKey, Registry, jwt

    key = OctKey.import_key(key_or_secret) if isinstance(key_or_secret, str) else key_or_secret
    header = {"typ": typ, "alg": algorithm, **({"kid": kid} if kid else {})}
    return jwt.encode(header, claims, key, registry=Registry(algorithm))
