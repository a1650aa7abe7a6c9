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
import time
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

Pairs = list[tuple[str, str]]

_counter = itertools.count()
_process = (0, "")


def escape(text: str) -> str:
    """Percent-encode as section 3.6 says: everything but letters, digits and `-._~`."""
    return quote(text, safe="~", encoding="utf-8")


def decode_pairs(query: str) -> Pairs:
    """Name-value pairs of a query or form body, as section 3.4.1.3.1 decodes them (`+` is a space)."""
    return parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")


def base_string_uri(url: str) -> str:
    """Scheme, authority and path (section 3.4.1.2): lower case, no default port, no query."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(scheme)
    if parts.port is not None and parts.port != default:
        host = f"{host}:{parts.port}"
    return f"{scheme}://{host}{parts.path or '/'}"


def normalize(pairs: Iterable[tuple[str, str]]) -> str:
    """Parameters encoded, sorted by encoded name then value, and joined (section 3.4.1.3.2)."""
    encoded = sorted((_escape_bytes(name), _escape_bytes(value)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _escape_bytes(text: str) -> str:
    # Bytes that are not UTF-8 were kept as surrogates, so that they are signed as they are sent.
    return quote(text.encode("utf-8", "surrogateescape"), safe="~")


def signature_base_string(method: str, url: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The text that is signed (section 3.4.1.1). `pairs` are the body's and the protocol's
    parameters; those of the query are taken from `url`."""
    every = [*decode_pairs(urlsplit(url).query), *pairs]
    return "&".join((escape(method.upper()), escape(base_string_uri(url)), escape(normalize(every))))


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
        digest = private_key.sign(text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the RFC's
    else:
        raise ValueError(f"unknown signature method {signature_method}")
    return base64.b64encode(digest).decode("ascii")


def load_private_key(pem: str) -> RSAPrivateKey:
    """An RSA key in PEM. Raises `ValueError` when it is not one."""
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
    fields = [f'realm="{realm}"'] if realm else []
    fields.extend(f'{escape(name)}="{escape(value)}"' for name, value in pairs)
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
    signature = sign(
        signature_method,
        signature_base_string(method, url, [*body_pairs, *pairs]),
        client_secret=client_secret,
        token_secret=token_secret,
        private_key=private_key,
    )
    pairs.append(("oauth_signature", signature))
    return authorization_header(pairs, realm)
