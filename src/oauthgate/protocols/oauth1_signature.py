"""OAuth 1.0a signatures (RFC 5849 section 3): pure functions from a request to its header.

Written out instead of taken from Authlib because it is what this package exists for, because Authlib
has no HMAC-SHA256, and because a signature is made for every call to the API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus, urlsplit

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

Pairs = list[tuple[str, str]]

_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_RESERVED = re.compile(r"[^A-Za-z0-9._~-]")

_counter = itertools.count()
_process = (0, "")


def escape(text: str) -> str:
    """Percent-encode as section 3.6 says: everything but letters, digits and `-._~`."""
    # Most of what is signed needs nothing, and `quote` would look at it byte by byte.
    if _UNRESERVED.fullmatch(text):
        return text
    if text.isascii():
        return _RESERVED.sub(_percent, text)
    return quote(text, safe="~", encoding="utf-8")


def _percent(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def decode_pairs(query: str) -> Pairs:
    """Name-value pairs of a query or form body, as section 3.4.1.3.1 decodes them (`+` is a space)."""
    pairs = []
    for field in query.split("&"):
        if field:
            name, _, value = field.partition("=")
            pairs.append((_decode(name), _decode(value)))
    return pairs


def _decode(text: str) -> str:
    return unquote_plus(text, "utf-8", "surrogateescape") if "%" in text or "+" in text else text


def base_string_uri(url: str) -> str:
    """Scheme, authority and path (section 3.4.1.2): lower case, no default port, no query."""
    parts = urlsplit(url)
    return f"{_origin(parts.scheme, parts.netloc)}{parts.path or '/'}"


@lru_cache(maxsize=256)
def _origin(scheme: str, netloc: str) -> str:
    parts = urlsplit(f"{scheme}://{netloc}")
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if parts.port is not None and parts.port != default:
        host = f"{host}:{parts.port}"
    return f"{parts.scheme}://{host}"


def normalize(pairs: Iterable[tuple[str, str]]) -> str:
    """Parameters encoded, sorted by encoded name then value, and joined (section 3.4.1.3.2)."""
    return _joined(_encoded(pairs))


def _encoded(pairs: Iterable[tuple[str, str]]) -> Pairs:
    return [(_escape_bytes(name), _escape_bytes(value)) for name, value in pairs]


def _joined(encoded: Pairs) -> str:
    return "&".join([f"{name}={value}" for name, value in sorted(encoded)])


def _escape_bytes(text: str) -> str:
    # Bytes that are not UTF-8 were kept as surrogates, so that they are signed as they are sent.
    if text.isascii():
        return escape(text)
    return quote(text.encode("utf-8", "surrogateescape"), safe="~")


def signature_base_string(method: str, url: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The text that is signed (section 3.4.1.1). `pairs` are the body's and the protocol's
    parameters; those of the query are taken from `url`."""
    return _base_string(method, url, _encoded(pairs))


def _base_string(method: str, url: str, encoded: Pairs) -> str:
    every = [*_encoded(decode_pairs(urlsplit(url).query)), *encoded]
    # What is encoded already holds three characters that are to be encoded once more.
    twice = _joined(every).replace("%", "%25").replace("=", "%3D").replace("&", "%26")
    return f"{escape(method.upper())}&{escape(base_string_uri(url))}&{twice}"


def sign(
    signature_method: str,
    base_string: str,
    *,
    client_secret: str,
    token_secret: str,
    private_key: RSAPrivateKey | None = None,
) -> str:
    """The value of `oauth_signature` (section 3.4). Raises `ValueError` for an unknown method."""
    key = f"{escape(client_secret)}&{escape(token_secret)}"
    if signature_method == "PLAINTEXT":
        return key
    text = base_string.encode("ascii")
    if signature_method == "HMAC-SHA1":
        digest = hmac.digest(key.encode("ascii"), text, "sha1")
    elif signature_method == "HMAC-SHA256":
        digest = hmac.digest(key.encode("ascii"), text, "sha256")
    elif signature_method == "RSA-SHA1":
        if private_key is None:
            raise ValueError("RSA-SHA1 needs a private key")
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        digest = private_key.sign(text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the RFC's
    else:
        raise ValueError(f"unknown signature method {signature_method}")
    return base64.b64encode(digest).decode("ascii")


def load_private_key(pem: str) -> RSAPrivateKey:
    """An RSA key in PEM. Raises `ValueError` when it is not one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError("expected an RSA private key in PEM, without a pass phrase") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("expected an RSA private key")
    return key


def nonce() -> str:
    """A value never used before with any timestamp (section 3.3), also after a fork.

    64 random bits per process make it unguessable enough, a counter makes it unique in the process.
    """
    global _process
    pid = os.getpid()
    if _process[0] != pid:
        _process = (pid, hashlib.sha256(os.urandom(32)).hexdigest()[:16])
    return f"{_process[1]}{next(_counter):x}"


def protocol_parameters(
    *,
    consumer_key: str,
    signature_method: str,
    token: str = "",
    timestamp: int | None = None,
    nonce_value: str | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """The `oauth_*` parameters but for the signature (section 3.1). PLAINTEXT takes them too."""
    pairs = [
        ("oauth_consumer_key", consumer_key),
        ("oauth_nonce", nonce_value or nonce()),
        ("oauth_signature_method", signature_method),
        ("oauth_timestamp", str(int(time.time()) if timestamp is None else timestamp)),
        ("oauth_version", "1.0"),
    ]
    if token:
        pairs.append(("oauth_token", token))
    pairs.extend(extra)
    return pairs


def authorization_header(pairs: Pairs, realm: str = "") -> str:
    """The `Authorization` header (section 3.5.1)."""
    return _header([(escape(name), escape(value)) for name, value in pairs], realm)


def _header(encoded: Pairs, realm: str) -> str:
    fields = [f'realm="{realm}"'] if realm else []
    fields.extend([f'{name}="{value}"' for name, value in encoded])
    return "OAuth " + ", ".join(fields)


def signed_header(
    method: str,
    url: str,
    body_pairs: Pairs,
    *,
    consumer_key: str,
    client_secret: str,
    token: str = "",
    token_secret: str = "",
    signature_method: str = "HMAC-SHA1",
    private_key: RSAPrivateKey | None = None,
    realm: str = "",
    extra: Iterable[tuple[str, str]] = (),
    timestamp: int | None = None,
    nonce_value: str | None = None,
) -> str:
    """The `Authorization` header of a signed request.

    `body_pairs` are the body's parameters when its type is `application/x-www-form-urlencoded`, and
    empty for any other body, which is not signed (section 3.4.1.3.1).
    """
    pairs = protocol_parameters(
        consumer_key=consumer_key,
        signature_method=signature_method,
        token=token,
        timestamp=timestamp,
        nonce_value=nonce_value,
        extra=extra,
    )
    encoded = _encoded(pairs)
    signature = sign(
        signature_method,
        _base_string(method, url, [*_encoded(body_pairs), *encoded]),
        client_secret=client_secret,
        token_secret=token_secret,
        private_key=private_key,
    )
    encoded.append(("oauth_signature", escape(signature)))
    return _header(encoded, realm)
