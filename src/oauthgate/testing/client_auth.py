"""How a client proves who it is at the token, revocation and introspection endpoints.

Owns: RFC 6749 section 2.3.1 (Basic with form-encoded credentials, or the body), public clients,
and `private_key_jwt` (RFC 7523 section 3, OpenID Connect Core section 9). A client is held to
the one method it registered.
"""

from __future__ import annotations

import base64
import hmac
from urllib.parse import unquote_plus

from . import jose
from .core import Core
from .messages import Message, Params, Refusal, oauth2_error
from .models import Client

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME = 600  # seconds; a longer-lived assertion is a stored password
SKEW = 60


def form_params(message: Message) -> Params:
    """Return the parameters of a POST to a protocol endpoint, refusing anything ambiguous."""
    if not message.complete:
        raise oauth2_error("invalid_request", "the body is too large", 413)
    if not message.is_form:
        raise oauth2_error("invalid_request", "the body must be form-encoded", 415)
    if message.query:
        raise oauth2_error("invalid_request", "parameters belong in the body, not in the query")
    params = Params.of(message.form)
    if params.repeated:
        raise oauth2_error("invalid_request", "a parameter came more than once")
    return params


def authenticate(core: Core, message: Message, params: Params) -> Client:
    """Return the client that sent the request.

    Raises:
        Refusal: 401 `invalid_client`, or 400 when it used more than one method.
    """
    header = message.header("authorization")
    used = []
    if header is not None:
        used.append("client_secret_basic")
    if params.get("client_secret"):
        used.append("client_secret_post")
    if params.get("client_assertion") or params.get("client_assertion_type"):
        used.append("private_key_jwt")
    if len(used) > 1:
        raise oauth2_error("invalid_request", "more than one client authentication method")
    method = used[0] if used else "none"
    client_id, secret = params.get("client_id"), params.get("client_secret")
    if header is not None:
        client_id, secret = _basic(core, header)
        if params.get("client_id") not in (None, client_id):
            raise oauth2_error("invalid_request", "client_id differs from the one in the header")
    elif method == "private_key_jwt":
        client_id = _assertion_subject(core, params)
    client = core.clients.get(client_id or "")
    if client is None:
        raise invalid_client(core, "unknown client")
    if method != client.token_endpoint_auth_method:
        registered = client.token_endpoint_auth_method
        raise invalid_client(core, f"the client is registered for {registered}")
    if method == "private_key_jwt":
        _check_assertion(core, message, params, client)
    elif method != "none" and not _same(secret, client.client_secret):
        raise invalid_client(core, "wrong client secret")
    return client


def invalid_client(core: Core, description: str) -> Refusal:
    challenge = {"WWW-Authenticate": f'Basic realm="{core.name}"'}
    return oauth2_error("invalid_client", description, 401, challenge)


def _same(given: str | None, expected: str | None) -> bool:
    return hmac.compare_digest((given or "").encode(), (expected or "").encode())


def _basic(core: Core, header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        plain = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        plain = ""
    name, colon, secret = plain.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise invalid_client(core, "the Authorization header is not valid Basic credentials")
    # Section 2.3.1: both halves are form-encoded before they are joined by a colon.
    return unquote_plus(name), unquote_plus(secret)


def _assertion_subject(core: Core, params: Params) -> str:
    if params.get("client_assertion_type") != ASSERTION_TYPE:
        raise invalid_client(core, "unknown client_assertion_type")
    try:
        _, claims = jose.peek(params.get("client_assertion") or "")
    except jose.BadToken as error:
        raise invalid_client(core, f"client_assertion: {error}") from error
    subject = claims.get("sub")
    if not isinstance(subject, str) or params.get("client_id") not in (None, subject):
        raise invalid_client(core, "client_assertion is about another client")
    return subject


def _check_assertion(core: Core, message: Message, params: Params, client: Client) -> None:
    assertion = params.get("client_assertion") or ""
    base, now = core.base(message), core.now()
    try:
        jose.verify(assertion, jose.import_jwks(client.jwks or {"keys": []}), jose.ASYMMETRIC)
    except jose.BadToken as error:
        raise invalid_client(core, f"client_assertion: {error}") from error
    _, claims = jose.peek(assertion)
    problem = None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    expiry, jti = claims.get("exp"), claims.get("jti")
    starts = [claims.get(name, now) for name in ("iat", "nbf")]
    if claims.get("iss") != client.client_id:
        problem = "iss is not the client_id"
    elif len(audiences) != 1 or audiences[0] not in (base, f"{base}/oauth2/token"):
        problem = "aud is neither the issuer nor the token endpoint, alone"
    elif not isinstance(expiry, int | float) or expiry <= now:
        problem = "exp is missing or past"
    elif expiry > now + ASSERTION_LIFETIME + SKEW:
        problem = "exp is too far ahead"
    elif not all(isinstance(start, int | float) and start <= now + SKEW for start in starts):
        problem = "iat or nbf is in the future"
    elif not isinstance(jti, str) or not jti:
        problem = "jti is missing"
    elif core.replayed(f"jti {client.client_id} {jti}"):
        problem = "jti was used before"
    if problem:
        raise invalid_client(core, f"client_assertion: {problem}")
