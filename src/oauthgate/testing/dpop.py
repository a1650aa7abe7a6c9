"""DPoP as a server sees it (RFC 9449): proofs are checked strictly, tokens bound to their key.

Owns: the checks of section 4.3, the nonces that the authorization server and the API each give out
(sections 8 and 9), and the challenges. It is written apart from the client, to be a check of it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from starlette.responses import JSONResponse, Response

from . import jose
from .core import Core
from .messages import NO_STORE, Message, Refusal, oauth2_error

Server = Literal["authorization", "resource"]

ALGORITHMS = ("ES256",)
WINDOW = 60  # seconds that `iat` may be off, either way
TOKEN_ENDPOINTS = ("token",)
API = ("userinfo", "me", "player", "tweets", "echo", "token_info")


class _BadProof(Exception):
    """A proof that does not hold, or that lacks the nonce."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error, self.description = error, description


def key_of_token_request(core: Core, message: Message) -> str | None:
    """Return the thumbprint of the key that a token request proves, None when it proves none.

    Raises:
        Refusal: 400 `invalid_dpop_proof` or `use_dpop_nonce`.
    """
    if not core.dpop or (message.header("dpop") is None and not core.dpop_required):
        return None
    try:
        return _check(core, message, "authorization")
    except _BadProof as problem:
        raise oauth2_error(problem.error, problem.description) from problem


def check_call(core: Core, message: Message, access_token: str, jkt: str) -> None:
    """Check the proof of an API call with a bound token.

    Raises:
        Refusal: 401 with a DPoP challenge.
    """
    try:
        if _check(core, message, "resource", access_token) != jkt:
            raise _BadProof("invalid_token", "the proof is of another key than the token's")
    except _BadProof as problem:
        raise refusal(core, problem.error, problem.description) from problem


def refusal(core: Core, error: str, description: str) -> Refusal:
    """Build the challenge of section 7.1."""
    parts = {"error": error, "error_description": description, "algs": " ".join(ALGORITHMS)}
    challenge = f"{core.dpop_scheme} " + ", ".join(f'{name}="{text}"' for name, text in parts.items())
    body = {"error": error, "error_description": description}
    return Refusal(JSONResponse(body, 401, headers={**NO_STORE, "WWW-Authenticate": challenge}))


def add_nonce(core: Core, message: Message, response: Response) -> None:
    """Give the newest nonce along with every answer to a request with a proof (section 8.2)."""
    server: Server = "authorization" if message.endpoint in TOKEN_ENDPOINTS else "resource"
    if message.endpoint not in (*TOKEN_ENDPOINTS, *API) or message.header("dpop") is None:
        return
    if core.dpop and server in core.dpop_nonce_required:
        response.headers["DPoP-Nonce"] = core.dpop_nonces[server][-1]


def _check(core: Core, message: Message, server: Server, access_token: str = "") -> str:
    """Check a proof as section 4.3 says, step by step; return its key's thumbprint."""
    proof = message.header("dpop")
    if proof is None or sum(name == "dpop" for name, _ in message.headers) != 1:
        raise _BadProof("invalid_dpop_proof", "expected one header DPoP")
    try:
        header, claims = jose.peek(proof)
        key = _public_key(header)
        jose.verify(proof, [key], ALGORITHMS)
    except (jose.BadToken, JoseError, ValueError, TypeError, KeyError) as error:
        raise _BadProof("invalid_dpop_proof", "the proof cannot be read or verified") from error
    _check_claims(core, message, claims)
    if access_token:
        expected = jose.b64(hashlib.sha256(access_token.encode()).digest())
        if claims.get("ath") != expected:
            raise _BadProof("invalid_dpop_proof", "ath is not the hash of the access token")
    elif "ath" in claims:
        raise _BadProof("invalid_dpop_proof", "ath without an access token")
    if server in core.dpop_nonce_required:
        known = core.dpop_nonces[server]
        if server in core.faults.endless_dpop_nonce or claims.get("nonce") not in known:
            raise _BadProof("use_dpop_nonce", "the proof needs the nonce of this server")
    # Last, so that a proof which was refused for its nonce does not count as seen.
    if core.replayed(f"dpop {claims['jti']}"):
        raise _BadProof("invalid_dpop_proof", "jti was used before")
    return key.thumbprint()


def _public_key(header: dict[str, Any]) -> ECKey:
    if header.get("typ") != "dpop+jwt":
        raise _BadProof("invalid_dpop_proof", "typ is not dpop+jwt")
    jwk = header.get("jwk")
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("kty") != "EC":
        raise _BadProof("invalid_dpop_proof", "jwk is missing, private, or of another kind")
    key = ECKey.import_key(jwk)
    if not isinstance(key.public_key.curve, ec.SECP256R1):
        raise _BadProof("invalid_dpop_proof", "the key is not on P-256")
    return key


def _check_claims(core: Core, message: Message, claims: dict[str, Any]) -> None:
    jti, issued = claims.get("jti"), claims.get("iat")
    problem = None
    if not isinstance(jti, str) or len(jti) < 16:
        problem = "jti is missing or too short to be unique"
    elif claims.get("htm") != message.method:
        problem = "htm is another method"
    elif claims.get("htu") != message.url:
        problem = "htu is another address"
    elif isinstance(issued, bool) or not isinstance(issued, int | float):
        problem = "iat is missing or no number"
    elif abs(core.now() - issued) > WINDOW:
        problem = "iat is too far from this clock"
    if problem:
        raise _BadProof("invalid_dpop_proof", problem)
