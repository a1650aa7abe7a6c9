"""Every exception that oauthgate raises, in one tree.

A message names the cause and the cure, and never holds a secret or another exception's text: it may
be shown to a visitor or written to a log.
"""

from __future__ import annotations

#: Error code → HTTP status. The codes of RFC 6749 keep their names.
STATUS = {
    "invalid_request": 400,
    "flow_not_found": 400,
    "flow_expired": 400,
    "flow_used": 400,
    "access_denied": 400,
    "provider_error": 400,
    "invalid_grant": 400,
    "login_required": 401,
    "link_required": 401,
    "reauth_required": 401,
    "invalid_token": 401,
    "csrf_failed": 403,
    "session_mismatch": 403,
    "not_allowed": 403,
    "refused": 403,
    "too_many_users": 403,
    "insufficient_scope": 403,
    "missing_profile_field": 403,
    "not_found": 404,
    "unknown_provider": 404,
    "handover_disabled": 404,
    "method_not_allowed": 405,
    "account_in_use": 409,
    "request_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "host_not_allowed": 421,
    "provider_misbehaved": 502,
    "provider_unreachable": 502,
    "provider_unavailable": 503,
    "store_unavailable": 503,
    "record_unreadable": 503,
    "provider_timeout": 504,
}


class OAuthGateError(Exception):
    """The root of the tree."""


class ConfigError(OAuthGateError, ValueError):
    """The configuration cannot work. The message names file, table, key, what was found and expected."""


class GateError(OAuthGateError):
    """An answer of the gate that is not a success.

    `code` is one of `STATUS`; `description` is for a developer who reads the JSON answer or the log;
    `retry_after` is in seconds. `target` is the page of the application that a flow was to end on, for
    the error page to lead back to.
    """

    def __init__(
        self,
        code: str,
        description: str,
        *,
        retry_after: int | None = None,
        provider: str | None = None,
    ) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = STATUS[code]
        self.retry_after = retry_after if retry_after is not None else _retry(self.status)
        self.provider = provider
        self.target: str | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.description}"


def _retry(status: int) -> int | None:
    return 5 if status == 503 else None


class Refused(GateError):
    """Raised by a `login` or `linked` hook: the sign-in or link is not to be.

    `message` is shown to the visitor as it stands.
    """

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


class NotLinked(OAuthGateError, KeyError):
    """The visitor has no usable link to this provider.

    Left alone, it becomes the answer that gets the link made: for a browser's navigation a redirect
    to the page that links the provider and comes back, otherwise a 401 in JSON. `reason` is
    `not_linked`, `reauth_required` or `scope`; `scope` lists what is missing.
    """

    def __init__(
        self, provider: str, *, reason: str = "not_linked", scope: tuple[str, ...] = ()
    ) -> None:
        super().__init__(provider)
        self.provider = provider
        self.reason = reason
        self.scope = scope

    def __str__(self) -> str:
        return f"no usable link to {self.provider} ({self.reason})"


class UnknownProvider(OAuthGateError, LookupError):
    """The code asks for a provider that no table configures. The message lists those there are."""


class ServiceError(OAuthGateError):
    """A call to a linked service could not be made as asked."""


class ForeignHost(ServiceError):
    """The URL is not on the provider's own hosts, so the token was not sent (RFC 9700 section 4.9.1)."""


class RefreshFailed(ServiceError):
    """The token has expired and the provider could not be asked for a new one; the link is kept."""


class StoreError(OAuthGateError):
    """The store could not be read or written. Never treated as "no such record"."""


class Conflict(StoreError):
    """The record is not at the version (or not as absent) as the writer expected."""


class SealError(OAuthGateError):
    """A sealed value does not open: an unknown key, another record's value, or a damaged one."""

    def __init__(self, message: str, *, unknown_key: bool = False) -> None:
        super().__init__(message)
        self.unknown_key = unknown_key
