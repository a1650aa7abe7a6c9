"""Checking OAuth 1.0a signatures.

Owns: RFC 5849 section 3: where the parameters of a request are (3.5), the signature base string
(3.4.1), HMAC-SHA1, HMAC-SHA256, RSA-SHA1 and PLAINTEXT (3.4.2 to 3.4.4), timestamp and nonce
(3.3), and the statuses of section 3.2. Written on the bare primitives: it is the independent
check of whatever signed the request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .core import Core
from .messages import Message
from .models import Client

HEADER_PAIR = re.compile(r'\s*([A-Za-z0-9_.~%-]+)="([^"]*)"\s*')
Pairs = list[tuple[str, str]]


class OAuth1Problem(Exception):
    """A request that is not accepted, with the status of RFC 5849 section 3.2 (400 or 401)."""

    def __init__(self, problem: str, advice: str, status: int = 401) -> None:
        super().__init__(problem)
        self.problem, self.advice, self.status = problem, advice, status


@dataclass(frozen=True, slots=True)
class Signed:
    """A request whose signature is right: who sent it and its `oauth_` parameters."""

    client: Client
    params: Mapping[str, str] = field(repr=False)


def is_signed(message: Message) -> bool:
    """Tell whether a request claims to carry an OAuth 1.0a signature."""
    scheme = (message.header("authorization") or "").partition(" ")[0]
    names = [name for name, _ in (*message.query, *message.form)]
    return scheme.lower() == "oauth" or "oauth_signature" in names


def check(core: Core, message: Message, secret_of: Callable[[Client, str | None], str | None]) -> Signed:
    """Accept a signed request.

    `secret_of` returns the secret that belongs to the client's token ("" for no token), or None
    when that token may not be used here.

    Raises:
        OAuth1Problem: anything about it is wrong.
    """
    if message.is_form and not message.complete:
        raise OAuth1Problem("parameter_rejected", "the body is too large", 413)
    protocol, signed = _collect(message)
    params = dict(protocol)
    if len(params) != len(protocol):
        raise OAuth1Problem("parameter_rejected", "an oauth_ parameter came twice", 400)
    method = params.get("oauth_signature_method")
    if params.get("oauth_version", "1.0") != "1.0":
        raise OAuth1Problem("version_rejected", "oauth_version is not 1.0", 400)
    needed = ["oauth_consumer_key", "oauth_signature_method", "oauth_signature"]
    if method != "PLAINTEXT":
        needed += ["oauth_timestamp", "oauth_nonce"]
    absent = [name for name in needed if not params.get(name)]
    if absent:
        raise OAuth1Problem("parameter_absent", ", ".join(absent), 400)
    if method not in core.signature_methods:
        raise OAuth1Problem("signature_method_rejected", str(method), 400)
    client = core.clients.get(params["oauth_consumer_key"])
    if client is None:
        raise OAuth1Problem("consumer_key_unknown", "the client is not registered")
    token_secret = secret_of(client, params.get("oauth_token") or None)
    if token_secret is None:
        raise OAuth1Problem("token_rejected", "the token is unknown, used, expired or misplaced")
    base = base_string(message, signed)
    if not _right(method, params["oauth_signature"], base, client, token_secret):
        raise OAuth1Problem("signature_invalid", "the signature does not fit the request")
    _check_fresh(core, params)
    return Signed(client, params)


def _collect(message: Message) -> tuple[Pairs, Pairs]:
    """Return the protocol's parameters, and all that the signature covers (3.4.1.3.1)."""
    places: list[Pairs] = []
    header = message.header("authorization") or ""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "oauth":
        places.append(_header_pairs(rest))
    query, form = list(message.query), list(message.form)
    for pairs in (query, form):
        found = [pair for pair in pairs if pair[0].startswith("oauth_")]
        if found:
            places.append(found)
    if len(places) > 1:
        raise OAuth1Problem("parameter_rejected", "oauth_ parameters in more than one place", 400)
    protocol = places[0] if places else []
    in_header = protocol if scheme.lower() == "oauth" else []
    signed = [p for p in (*query, *form, *in_header) if p[0] != "oauth_signature"]
    return protocol, signed


def _header_pairs(text: str) -> Pairs:
    pairs: Pairs = []
    for part in text.split(","):
        match = HEADER_PAIR.fullmatch(part)
        if match is None:
            raise OAuth1Problem("parameter_rejected", "malformed Authorization header", 400)
        name, value = unquote(match[1]), unquote(match[2])
        if name.lower() != "realm":
            pairs.append((name, value))
    return pairs


def escape(text: str) -> str:
    """Percent-encode as section 3.6 asks: everything but letters, digits and `-._~`."""
    return quote(text, safe="~")


def base_string(message: Message, pairs: Pairs) -> str:
    parts = urlsplit(message.url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, default) else ""
    uri = f"{parts.scheme.lower()}://{host}{port}{message.raw_path or '/'}"
    encoded = sorted((escape(name), escape(value)) for name, value in pairs)
    normalized = "&".join(f"{name}={value}" for name, value in encoded)
    return "&".join((message.method.upper(), escape(uri), escape(normalized)))


def _right(method: str, signature: str, base: str, client: Client, token_secret: str) -> bool:
    key = f"{escape(client.client_secret or '')}&{escape(token_secret)}".encode()
    if method == "PLAINTEXT":
        return hmac.compare_digest(signature.encode(), key)
    try:
        given = b64decode(signature, validate=True)
    except ValueError:
        return False
    if method == "RSA-SHA1":
        return _rsa(client, base.encode(), given)
    digest = hashlib.sha1 if method == "HMAC-SHA1" else hashlib.sha256
    return hmac.compare_digest(given, hmac.digest(key, base.encode(), digest))


def _rsa(client: Client, data: bytes, signature: bytes) -> bool:
    if client.rsa_public_key is None:
        return False
    key = load_pem_public_key(client.rsa_public_key.encode())
    if not isinstance(key, RSAPublicKey):
        return False
    try:
        key.verify(signature, data, PKCS1v15(), SHA1())  # noqa: S303 (RFC 5849 section 3.4.3)
    except InvalidSignature:
        return False
    return True


def _check_fresh(core: Core, params: Mapping[str, str]) -> None:
    """Refuse old and replayed requests; only after the signature, so no stranger burns a nonce."""
    stamp, nonce = params.get("oauth_timestamp"), params.get("oauth_nonce")
    if stamp is not None and not re.fullmatch(r"[0-9]{1,15}", stamp):
        raise OAuth1Problem("parameter_rejected", "oauth_timestamp is not a number", 400)
    if stamp is not None and abs(core.now() - int(stamp)) > core.timestamp_window:
        raise OAuth1Problem("timestamp_refused", "oauth_timestamp is too far from now")
    if nonce is None:
        return  # PLAINTEXT may do without
    owner, token = params["oauth_consumer_key"], params.get("oauth_token", "")
    if core.replayed(f"nonce {owner} {token} {stamp} {nonce}"):
        raise OAuth1Problem("nonce_used", "this nonce was used before")
