"""ID tokens, and whatever else the provider signs.

Owns: the claims of an account by scope (OpenID Connect Core section 5.4), ID tokens (sections 2
and 12.2), signing with the faults that a test turned on, and reading an `id_token_hint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from . import jose
from .core import Core
from .messages import Message
from .models import Account, Client
from .state import Grant

ID_TOKEN_LIFETIME = 3600  # seconds


def claims_for(core: Core, message: Message, account: Account, scope: tuple[str, ...]) -> dict[str, Any]:
    claims: dict[str, Any] = {"sub": account.id}
    if "profile" in scope:
        claims |= {
            "name": account.name,
            "preferred_username": account.username,
            "picture": core.picture(account, core.base(message)),
            **account.extra,
        }
    if "email" in scope and account.email:
        claims |= {"email": account.email, "email_verified": account.email_verified}
    return {name: value for name, value in claims.items() if value is not None}


def id_token(
    core: Core, message: Message, client: Client, grant: Grant, access_token: str, *, first: bool
) -> str:
    """Make an ID token; one from a refresh keeps `auth_time` and has no nonce (section 12.2)."""
    alg = client.id_token_signed_response_alg or core.id_token_signed_response_alg
    now = int(core.now())
    digest = hashlib.sha512 if alg == "EdDSA" else hashlib.sha256
    half = digest(access_token.encode()).digest()[: digest().digest_size // 2]
    account = core.accounts[grant.account_id]
    claims = {
        **(claims_for(core, message, account, grant.scope) if core.claims_in_id_token else {}),
        "iss": core.base(message),
        "sub": account.id,
        "aud": client.client_id,
        "exp": now + ID_TOKEN_LIFETIME,
        "iat": now,
        "auth_time": grant.auth_time,
        "sid": grant.sid,
        "at_hash": jose.b64(half),
    }
    if first and grant.nonce is not None:
        claims["nonce"] = grant.nonce
    return sign(core, claims, client, alg=alg)


def sign(
    core: Core,
    claims: Mapping[str, Any],
    client: Client,
    *,
    alg: str | None = None,
    typ: str = "JWT",
) -> str:
    """Sign claims as the provider would for this client, faults included."""
    alg = alg or client.id_token_signed_response_alg or core.id_token_signed_response_alg
    key: jose.SigningKey | bytes
    header: dict[str, Any] = {"alg": alg, "typ": typ}
    if alg == "HS256":
        key = (client.client_secret or "").encode()
    else:
        key = core.keys.signing(alg)
        header["kid"] = key.kid
    sign_with = core.faults.sign_with
    if sign_with == "none":
        header, key = {"alg": "none"}, b""
    elif sign_with == "hs256_public_key":
        public = core.keys.signing(alg if alg in jose.ASYMMETRIC else "RS256")
        header["alg"], key = "HS256", public.as_pem(private=False)
    elif sign_with == "other_key":
        key = jose.new_key(alg, header["kid"]) if "kid" in header else b"a stranger's secret"
    elif sign_with is not None:
        key = sign_with
    if core.faults.omit_kid:
        header.pop("kid", None)
    body = dict(claims)
    hook = core.faults.tamper_id_token
    if hook is not None:
        changed = hook(body, header)
        if isinstance(changed, tuple):
            body, header = changed
        elif changed is not None:
            body = changed
    return jose.compact(header, body, key)


def hint_claims(core: Core, message: Message, hint: str) -> dict[str, Any]:
    """Return the claims of an ID token of ours, expired or not; nothing if it is not ours."""
    try:
        _, claims = jose.peek(hint)
        client = core.clients.get(str(claims.get("aud")))
        if client is None or claims.get("iss") != core.base(message):
            return {}
        alg = client.id_token_signed_response_alg or core.id_token_signed_response_alg
        secret = (client.client_secret or "").encode()
        jose.verify(hint, secret if alg == "HS256" else core.keys.all(alg), [alg])
    except jose.BadToken:
        return {}
    return claims
