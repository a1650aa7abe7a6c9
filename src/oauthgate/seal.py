"""The one place that encrypts and decrypts: records of the store and flow cookies.

A sealed value is `version (1 byte) | key id (4) | nonce (12) | AES-256-GCM ciphertext and tag`. The
name of the record or cookie is its associated data, so a ciphertext that is moved to another row
does not open. The first secret seals, all of them open; there is no path that reads plaintext.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import ConfigError, SealError

VERSION = b"\x01"
KEY_ID_LENGTH = 4
NONCE_LENGTH = 12
HEADER_LENGTH = 1 + KEY_ID_LENGTH + NONCE_LENGTH
#: Bytes that a secret must have at least; 32 random bytes are what the key file holds.
MINIMUM_SECRET = 32


def derive(secret: bytes, purpose: str, length: int = 32) -> bytes:
    """One key per purpose from one secret (HKDF, RFC 5869), so no key serves two algorithms."""
    return HKDF(SHA256(), length, salt=None, info=b"oauthgate/1/" + purpose.encode()).derive(secret)


class Keys:
    """The secrets of one gate, as keys for sealing and for keyed hashes.

    The first secret seals and makes the keyed hashes (of session secrets, of account ids); all of them
    open and are looked up by. So nothing is lost when a new one is put in front, and `oauthgate keys
    rotate` moves what the older ones still hold (`resealing.py`, `rehashing.py`).
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ConfigError("at least one secret is needed")
        for position, secret in enumerate(secrets):
            if len(secret) < MINIMUM_SECRET:
                raise ConfigError(
                    f"[oauthgate] secret: number {position + 1} has {len(secret)} bytes, expected at "
                    f"least {MINIMUM_SECRET}; make one with: "
                    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )
        self._ciphers: dict[bytes, AESGCM] = {}
        for secret in secrets:
            self._ciphers.setdefault(
                derive(secret, "key-id", KEY_ID_LENGTH), AESGCM(derive(secret, "seal"))
            )
        self._current = next(iter(self._ciphers))
        self._hash_keys = [derive(secret, "hash") for secret in dict.fromkeys(secrets)]
        self._token_keys = [derive(secret, "api-token").hex() for secret in dict.fromkeys(secrets)]

    def __repr__(self) -> str:
        return f"Keys({len(self._ciphers)} secrets)"

    @property
    def several(self) -> bool:
        """Whether there is more than one secret."""
        return len(self._hash_keys) > 1

    @property
    def key_id(self) -> bytes:
        """The id of the key that seals."""
        return self._current

    @property
    def key_ids(self) -> list[bytes]:
        """The ids of all keys, in the order of their secrets."""
        return list(self._ciphers)

    @property
    def token_keys(self) -> dict[str, str]:
        """The keys that API tokens are signed with (`api_tokens.py`), by the ids of their secrets: the
        first signs, all verify."""
        ids = [key_id.hex() for key_id in self._ciphers]
        return dict(zip(ids, self._token_keys, strict=True))

    def seal(self, name: str, plaintext: bytes) -> bytes:
        """Encrypt `plaintext` so that it opens under `name` only."""
        nonce = os.urandom(NONCE_LENGTH)
        header = VERSION + self._current + nonce
        data = header[:5] + name.encode()
        return header + self._ciphers[self._current].encrypt(nonce, plaintext, data)

    def open(self, name: str, sealed: bytes) -> bytes:
        """Decrypt what was sealed under `name`. Raises `SealError`; nothing else opens it."""
        if len(sealed) < HEADER_LENGTH or sealed[:1] != VERSION:
            raise SealError("not a sealed value of a known version")
        key_id = sealed[1:5]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(
                f"sealed with a secret that is not configured (key id {key_id.hex()})",
                unknown_key=True,
            )
        data = sealed[:5] + name.encode()
        try:
            return cipher.decrypt(sealed[5:HEADER_LENGTH], sealed[HEADER_LENGTH:], data)
        except InvalidTag:
            raise SealError("damaged, or sealed under another name") from None

    def hash(self, purpose: str, value: bytes) -> bytes:
        """A keyed hash (HMAC-SHA-256, 32 bytes): useless to a thief of the store without the secret."""
        return hmac.digest(self._hash_keys[0], purpose.encode() + b"\x00" + value, "sha256")

    def hashes(self, purpose: str, value: bytes) -> list[bytes]:
        """The hash under every secret, the one that is written first: for look-ups after a rotation."""
        message = purpose.encode() + b"\x00" + value
        return [hmac.digest(key, message, "sha256") for key in self._hash_keys]


def spelt(digest: bytes) -> str:
    """A keyed hash as part of a record's key: 128 bits in 22 characters, as a user has several of them.

    Nobody without the secret can look for two values with the same one.
    """
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def key_id_of(sealed: bytes) -> bytes | None:
    """The id of the key that a value was sealed with; None for what is not a sealed value."""
    if len(sealed) < HEADER_LENGTH or sealed[:1] != VERSION:
        return None
    return sealed[1 : 1 + KEY_ID_LENGTH]
