"""OAuth 1.0a (RFC 5849): temporary credentials, the owner's authorization, token credentials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx2

from ..errors import GateError
from ..outbound import Answer, Outbound, build
from ..providers import Provider
from ..records import Token
from ..strict_json import StrictJSONError
from .oauth1_signature import Pairs, decode_pairs, load_private_key, signed_header
from .tokens import TokenAnswer, TokenError, misbehaved, usable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class TemporaryCredentials:
    """A request token and its secret (section 2.1)."""

    token: str
    secret: str

    def __repr__(self) -> str:
        return "TemporaryCredentials()"


@lru_cache(maxsize=64)
def _private_key(pem: str) -> RSAPrivateKey:
    return load_private_key(pem)


def authorize(
    provider: Provider,
    request: httpx2.Request,
    *,
    token: str = "",
    token_secret: str = "",
    extra: Pairs | None = None,
) -> None:
    """Sign a request in place (section 3): its query, its form body if it has one, its method.

    A form body must have been read already. Any other body stays as it is and is not signed.
    """
    body: Pairs = []
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == FORM:
        body = decode_pairs(request.content.decode("utf-8", "surrogateescape"))
    request.headers["Authorization"] = signed_header(
        request.method,
        str(request.url),
        body,
        consumer_key=provider.client_id,
        client_secret=provider.client_secret,
        token=token,
        token_secret=token_secret,
        signature_method=provider.signature_method,
        private_key=(
            _private_key(provider.private_key) if provider.signature_method == "RSA-SHA1" else None
        ),
        realm=provider.realm,
        extra=extra or (),
    )


async def temporary_credentials(
    outbound: Outbound, provider: Provider, callback: str
) -> TemporaryCredentials:
    """Fetch a request token (section 2.1). Raises `GateError`."""
    fields = await _post(
        outbound,
        provider,
        provider.request_token_url,
        [("oauth_callback", callback)],
        form=dict(provider.request_token_params),
    )
    # Without the confirmation the server speaks OAuth 1.0, whose request tokens an attacker can
    # have authorized by somebody else (the session fixation that 1.0a was made against).
    if fields.get("oauth_callback_confirmed") != "true":
        raise misbehaved(provider, "the request token answer has no oauth_callback_confirmed=true")
    return TemporaryCredentials(*_credentials(provider, fields))


def authorization_url(
    provider: Provider, credentials: TemporaryCredentials, extra: dict[str, str]
) -> str:
    """Where the browser goes (section 2.2)."""
    query = urlencode({"oauth_token": credentials.token, **provider.authorization_params, **extra})
    separator = "&" if "?" in provider.authorization_endpoint else "?"
    return f"{provider.authorization_endpoint}{separator}{query}"


async def token_credentials(
    outbound: Outbound, provider: Provider, credentials: TemporaryCredentials, verifier: str, now: float
) -> TokenAnswer:
    """Swap an authorized request token for the token (section 2.3). Raises `GateError`."""
    fields = await _post(
        outbound,
        provider,
        provider.token_endpoint,
        [("oauth_verifier", verifier)],
        token=credentials.token,
        token_secret=credentials.secret,
    )
    token, secret = _credentials(provider, fields)
    extra = {
        name: value
        for name, value in fields.items()
        if name not in ("oauth_token", "oauth_token_secret")
    }
    return TokenAnswer(
        Token(access_token=token, token_secret=secret, token_type="OAuth", received_at=now),  # noqa: S106
        None,
        extra,
    )


async def _post(
    outbound: Outbound,
    provider: Provider,
    url: str,
    extra: Pairs,
    *,
    token: str = "",
    token_secret: str = "",
    form: dict[str, str] | None = None,
) -> dict[str, str]:
    request = build("POST", url, form=form or None, headers={"Accept": "*/*"})
    authorize(provider, request, token=token, token_secret=token_secret, extra=extra)
    answer = await outbound.send(provider, request)
    if not answer.ok:
        raise TokenError(provider, _problem(answer), answer.status)
    try:
        # The declared type varies between servers; the format does not (section 2.1).
        return answer.form()
    except StrictJSONError as error:
        raise misbehaved(provider, f"the token answer cannot be read: {error}") from None


def _problem(answer: Answer) -> str:
    """The code of the problem reporting extension, where a server uses it."""
    try:
        problem = answer.form().get("oauth_problem", "")
    except StrictJSONError:
        return ""
    return problem if problem.replace("_", "").isalpha() and len(problem) < 64 else ""


def _credentials(provider: Provider, fields: dict[str, str]) -> tuple[str, str]:
    token, secret = fields.get("oauth_token"), fields.get("oauth_token_secret")
    # An empty secret would make signatures that anybody who sees a token can make.
    if not usable(token) or not usable(secret) or not token or not secret:
        raise misbehaved(provider, "the token answer has no oauth_token and oauth_token_secret")
    return token, secret


def required_verifier(provider: Provider, verifier: str | None) -> str:
    """The verifier of a callback; it is what shows that the owner came back (section 2.2)."""
    if not verifier or len(verifier) > 1000:
        raise GateError(
            "invalid_request", "the callback has no usable oauth_verifier", provider=provider.name
        )
    return verifier
