"""Reading a token answer: only one that is whole, unambiguous and of a kind we can use is believed.

RFC 6749 sections 5.1 and 5.2; what a provider names or nests differently is data of the provider.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import GateError
from ..outbound import Answer
from ..providers import Provider
from ..records import Token
from ..strict_json import StrictJSONError
from .paths import look_up

#: Characters of an access token; providers with large JWTs reach some 16 thousand.
MAX_TOKEN = 32 * 1024
#: Seconds; a lifetime beyond is as good as unknown.
MAX_LIFETIME = 10 * 366 * 86400
_VISIBLE = re.compile(r"[\x20-\x7e]+")
#: What is to be looked at, for errors whose cause is seldom the provider (RFC 9449 sections 5 and 8).
_CAUSES = {
    "invalid_dpop_proof": ": is dpop = true in its table, and is this machine's clock right?",
    "use_dpop_nonce": ": it wants a DPoP nonce, and did not take the one that it gave; is dpop = true "
    "in its table?",
}
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class TokenError(GateError):
    """The token endpoint refused. `error` is its code, such as `invalid_grant`, or empty."""

    def __init__(self, provider: Provider, error: str, status: int) -> None:
        later = status >= 500 or status == 429
        super().__init__(
            "provider_unavailable" if later else "provider_misbehaved",
            f"{provider.title} refused the token request (status {status}"
            + (f", {error})" if error else ")")
            + _CAUSES.get(error, ""),
            provider=provider.name,
        )
        self.error = error


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token, the scope that was granted (None: as asked), and every field of the answer."""

    token: Token
    scope: list[str] | None
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return "TokenAnswer()"


def misbehaved(provider: Provider, what: str) -> GateError:
    """The 502 for an answer that cannot be used."""
    return GateError("provider_misbehaved", f"{provider.title}: {what}", provider=provider.name)


class ProfileRefused(GateError):
    """The profile's address did not answer with a profile; `answered` is the status that it gave."""

    def __init__(self, provider: Provider, what: str, answered: int) -> None:
        super().__init__(
            "provider_misbehaved",
            f"{provider.title}: {what} answered with status {answered}",
            provider=provider.name,
        )
        self.answered = answered


def read_answer(provider: Provider, answer: Answer) -> dict[str, Any]:
    """The fields of a token endpoint's answer. Raises `GateError` for an error, whatever its status."""
    try:
        fields = _parse(provider, answer)
    except StrictJSONError as error:
        if not answer.ok:
            raise TokenError(provider, "", answer.status) from None
        raise misbehaved(provider, f"the token answer cannot be read: {error}") from None
    error_code = fields.get("error")
    failed = not answer.ok or error_code not in (None, "", 0) or fields.get("ok") is False
    if failed:
        shown = error_code if isinstance(error_code, str) else ""
        # Only what looks like a code is repeated: the rest is text of the provider's choosing.
        raise TokenError(provider, shown if _ERROR_CODE.fullmatch(shown) else "", answer.status)
    return fields


def _parse(provider: Provider, answer: Answer) -> dict[str, Any]:
    if provider.token_response_format == "form":  # noqa: S105 - a format
        return dict(answer.form())
    try:
        return answer.json_object()
    except StrictJSONError:
        if provider.token_response_format == "any":  # noqa: S105
            return dict(answer.form())
        raise


def read_token(provider: Provider, answer: Answer, now: float, dpop_key: str = "") -> TokenAnswer:
    """The token of an OAuth 2 token answer (RFC 6749 section 5.1), bound to `dpop_key` where the request
    had a proof of it. Raises `GateError`."""
    fields = read_answer(provider, answer)

    def get(name: str) -> object:
        path = provider.token_response.get(name) or provider.parameter_names.get(name)
        return look_up(fields, path) if path else fields.get(name)

    access_token = get("access_token")
    if not usable(access_token):
        raise misbehaved(provider, "the token answer has no usable access_token")
    _check_type(provider, get("token_type"), bound=bool(dpop_key))
    refresh_token = get("refresh_token")
    id_token = get("id_token")
    lifetime = seconds(get("expires_in"))
    token = Token(
        access_token=str(access_token),
        refresh_token=str(refresh_token) if usable(refresh_token) else "",
        id_token=id_token if isinstance(id_token, str) else "",
        expires_at=None if lifetime is None else now + lifetime,
        received_at=now,
        token_type="DPoP" if dpop_key else "Bearer",
        dpop_key=dpop_key,
    )
    return TokenAnswer(token, granted(provider, get("scope")), fields)


def _check_type(provider: Provider, value: object, *, bound: bool) -> None:
    """Refuse a token of a type that we would not use as such; types have no case."""
    found = value.lower() if isinstance(value, str) else ""
    if bound and found != "dpop":
        # Anybody who reads such a token could use it, which is what the key is to prevent
        # (RFC 9449 section 5).
        raise misbehaved(provider, "the token answer's token_type is not DPoP, which was asked for")
    if not bound and found == "dpop":
        raise misbehaved(provider, "the token is bound to a key (token_type DPoP) that was not sent")
    if not bound and provider.token_type_check and found != "bearer":
        raise misbehaved(provider, "the token answer's token_type is not Bearer")


def usable(value: object) -> bool:
    """Whether a value can be a token: visible ASCII, so that it can stand in a header."""
    return isinstance(value, str) and len(value) <= MAX_TOKEN and bool(_VISIBLE.fullmatch(value))


def seconds(value: object) -> float | None:
    """A lifetime in seconds from whatever a provider calls a number; None when it says nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not 0 < number <= MAX_LIFETIME:
        return None
    return number


def granted(provider: Provider, value: object) -> list[str] | None:
    """The scope that was granted; None where the answer does not say, which means "as asked"."""
    if isinstance(value, str):
        text = value
        for delimiter in provider.scope_response_delimiters:
            text = text.replace(delimiter, " ")
        return text.split()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    return None if value is None else []
