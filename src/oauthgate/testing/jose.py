"""Compact signatures and the provider's signing keys.

Owns: making and checking compact JWS (RFC 7515 section 7.1) with the algorithms of RFC 7518
section 3 and RFC 8037 that OpenID providers use, and `Keys`, which makes, publishes and rotates
keys (RFC 7517). It is written on the bare primitives so that it stays an independent check of
a client that uses a JOSE library, and so that it can sign wrongly when a test wants it to.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey, KeyParameters, KeySet, OKPKey, RSAKey

SigningKey = RSAKey | ECKey | OKPKey
ASYMMETRIC = ("RS256", "PS256", "ES256", "EdDSA")
_PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)


class BadToken(Exception):
    """A compact JWS that cannot be read or whose signature is wrong."""


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise BadToken("not base64url") from error


def compact(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey | bytes) -> str:
    """Sign claims; `bytes` are an HMAC key, or nothing at all when `alg` is none."""
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(_sign(str(header['alg']), signed.encode(), key))}"


def _sign(alg: str, data: bytes, key: SigningKey | bytes) -> bytes:
    if alg == "none":
        return b""
    if isinstance(key, bytes):
        return hmac.digest(key, data, hashlib.sha256)
    private = key.private_key
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(data, _PSS if alg == "PS256" else padding.PKCS1v15(), SHA256())
    if isinstance(private, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(data)
    raise ValueError(f"cannot sign {alg} with this key")


def peek(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims unverified, to learn whose key must check them."""
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("not three parts")
    try:
        header, claims = (json.loads(unb64(part)) for part in parts[:2])
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise BadToken("not JSON") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise BadToken("not JSON objects")
    return header, claims


def verify(token: str, keys: Iterable[SigningKey] | bytes, algorithms: Iterable[str]) -> None:
    """Check a signature; `bytes` are an HMAC key.

    Raises:
        BadToken: the algorithm is not among those allowed, or no key fits.
    """
    header, _ = peek(token)
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in tuple(algorithms) or "crit" in header:
        raise BadToken("algorithm not allowed")
    signed, _, tail = token.rpartition(".")
    signature = unb64(tail)
    if isinstance(keys, bytes):
        if not hmac.compare_digest(signature, hmac.digest(keys, signed.encode(), hashlib.sha256)):
            raise BadToken("signature is wrong")
        return
    for key in keys:
        if (kid is None or key.kid == kid) and _fits(alg, signed.encode(), signature, key):
            return
    raise BadToken("no key verifies the signature")


def _fits(alg: str, data: bytes, signature: bytes, key: SigningKey) -> bool:
    public = key.public_key
    try:
        if alg in ("RS256", "PS256") and isinstance(public, rsa.RSAPublicKey):
            pad = _PSS if alg == "PS256" else padding.PKCS1v15()
            public.verify(signature, data, pad, SHA256())
        elif alg == "ES256" and isinstance(public, ec.EllipticCurvePublicKey):
            if len(signature) != 64 or public.curve.name != "secp256r1":
                return False
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            public.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
        elif alg == "EdDSA" and isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, data)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def import_jwks(jwks: Mapping[str, Any]) -> list[SigningKey]:
    keys = KeySet.import_key_set({"keys": list(jwks["keys"])}).keys
    return [key for key in keys if isinstance(key, SigningKey)]


def new_key(alg: str, kid: str | None = None) -> SigningKey:
    """Make a private key for an asymmetric algorithm."""
    about: KeyParameters = {"kid": kid or secrets.token_urlsafe(8), "use": "sig", "alg": alg}
    if alg in ("RS256", "PS256"):
        return RSAKey.generate_key(2048, about)
    if alg == "ES256":
        return ECKey.generate_key("P-256", about)
    if alg == "EdDSA":
        return OKPKey.generate_key("Ed25519", about)
    raise ValueError(f"{alg!r} is not one of {', '.join(ASYMMETRIC)}")


class Keys:
    """The provider's signing keys by algorithm, made on first need; the newest one signs."""

    def __init__(self) -> None:
        self._by_alg: dict[str, list[SigningKey]] = {}

    def all(self, alg: str) -> list[SigningKey]:
        return self._by_alg.setdefault(alg, []) or self.add(alg)

    def add(self, alg: str) -> list[SigningKey]:
        keys = self._by_alg.setdefault(alg, [])
        keys.append(new_key(alg))
        return keys

    def signing(self, alg: str) -> SigningKey:
        return self.all(alg)[-1]

    def rotate(self, *, keep_old: bool) -> None:
        """Replace every key; with `keep_old` the former ones stay published."""
        for alg, keys in self._by_alg.items():
            if not keep_old:
                keys.clear()
            self.add(alg)

    def published(self, algorithms: Iterable[str]) -> dict[str, Any]:
        """Return the JWK Set; it never contains a private or a symmetric key."""
        found = (key for alg in algorithms if alg in ASYMMETRIC for key in self.all(alg))
        return {"keys": [dict(key.as_dict(private=False)) for key in found]}
