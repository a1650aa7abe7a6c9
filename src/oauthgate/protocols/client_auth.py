"""How the client proves itself at the token, revocation and introspection endpoints.

RFC 6749 section 2.3, RFC 7523 section 2.2 and OpenID Connect Core section 9.
"""

from __future__ import annotations

import base64
import secrets
import time
from urllib.parse import quote_plus

from ..providers import Provider, fill
from . import jose

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: Seconds that a client assertion is good for.
ASSERTION_LIFETIME = 60


def effective_method(provider: Provider) -> str:
    """The configured method; without one, `client_secret_basic` where there is a secret (RFC 6749's
    must for every server), else `none`."""
    if provider.token_endpoint_auth_method is not None:
        method: str = provider.token_endpoint_auth_method
        # A preset may name the method of providers whose secret is optional.
        if method.startswith("client_secret") and not client_secret(provider, probe=True):
            return "none"
        return method
    return "client_secret_basic" if client_secret(provider, probe=True) else "none"


def client_secret(provider: Provider, *, probe: bool = False) -> str:
    """The client secret: as configured, or signed for now where it is a JWT."""
    signed = provider.client_secret_jwt
    if signed is None:
        return provider.client_secret
    if probe:
        return "signed"
    now = int(time.time())
    values = {**provider.placeholders, "client_id": provider.client_id}
    claims = {
        "iss": fill(signed.iss, values),
        "sub": fill(signed.sub, values),
        "aud": fill(signed.aud, values),
        "iat": now,
        "exp": now + signed.lifetime,
    }
    key = jose.load_signing_key(provider.private_key)
    return jose.sign(claims, key, signed.alg, signed.kid or provider.private_key_id)


def basic(provider: Provider) -> str:
    """HTTP Basic with both halves form-encoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(provider.client_id)}:{quote_plus(client_secret(provider))}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def apply(provider: Provider, form: dict[str, str], headers: dict[str, str], audience: str) -> None:
    """Add the client's authentication to a request's form and headers.

    `audience` is what a client assertion is addressed to: the issuer, or the token endpoint.
    """
    method = effective_method(provider)
    if method == "client_secret_basic":
        headers["Authorization"] = basic(provider)
        return
    form["client_id"] = provider.client_id
    if method == "client_secret_post":
        form["client_secret"] = client_secret(provider)
    elif method in ("private_key_jwt", "client_secret_jwt"):
        form["client_assertion_type"] = ASSERTION_TYPE
        form["client_assertion"] = _assertion(provider, audience, method)


def _assertion(provider: Provider, audience: str, method: str) -> str:
    now = int(time.time())
    claims = {
        "iss": provider.client_id,
        "sub": provider.client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(24),
        "iat": now,
        "exp": now + ASSERTION_LIFETIME,
    }
    algorithm = provider.token_endpoint_auth_signing_alg
    if method == "client_secret_jwt":
        return jose.sign(claims, provider.client_secret, algorithm or "HS256")
    key = jose.load_signing_key(provider.private_key)
    return jose.sign(claims, key, algorithm or jose.algorithm_for(key), provider.private_key_id)
