"""A provider as data: every key a provider's table may hold, for presets and users alike.

The wire names are the RFCs'. What makes one provider odd is a field here, never a condition on its
name in the code: a preset is a TOML file of these keys (`presets/`), and a user's own table can hold
all that a preset can. `docs/providers.md` explains each key with an example.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import field

from .structs import decoder_of

Protocol = Literal["oauth1", "oauth2", "oidc"]
AuthMethod = Literal[
    "client_secret_basic", "client_secret_post", "none", "private_key_jwt", "client_secret_jwt"
]
SignatureMethod = Literal["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT"]
HandOver = Literal["access_token", "id_token", "code"]

#: Keys whose values are never shown, in an error or in a repr.
SECRET_KEYS = frozenset({"client_secret", "private_key", "secret", "api_token_key"})
#: The normalised profile.
PROFILE_FIELDS = ("id", "username", "name", "email", "email_verified", "picture", "gender")
#: Where OpenID Connect has them (Core section 5.1).
STANDARD_CLAIMS: dict[str, str | list[str]] = {
    "id": "sub",
    "username": "preferred_username",
    "name": "name",
    "email": "email",
    "email_verified": "email_verified",
    "picture": "picture",
    "gender": "gender",
}


class SignedSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `client_secret` that is a JWT signed with `private_key`, made anew when it is needed.

    The strings may hold `{placeholders}` of the provider's table; `lifetime` is in seconds.
    """

    alg: str = "ES256"
    iss: str
    sub: str = "{client_id}"
    aud: str
    kid: str = ""
    lifetime: int = 3600


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a revocation request differs from RFC 7009, which is what the defaults say.

    `params` replace RFC 7009's; `{access_token}`, `{refresh_token}` and placeholders are filled in.
    """

    method: Literal["POST", "DELETE", "GET"] = "POST"
    auth: Literal["client", "basic", "token", "none"] = "client"
    params: dict[str, str] = field(default_factory=dict)
    body: Literal["form", "json"] = "form"


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tells whom an access token was issued to: the proof for a token that is handed over.

    `field` and `active` are paths into the answer (`protocols/paths.py`): the first must hold `equals`,
    the second, where there is one, must be true. The rest is how the request is made, in the words of
    `Revocation`; `params` may hold `{access_token}`, `{client_secret}` and placeholders.
    """

    url: str
    field: str = "client_id"
    equals: str | int = "{client_id}"
    active: str = ""
    method: Literal["GET", "POST"] = "GET"
    auth: Literal["token", "client", "basic", "none"] = "token"
    params: dict[str, str] = msgspec.field(default_factory=dict)  # `field` is a key's name here
    body: Literal["form", "json"] = "form"


class CarryField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a value carried through a flow may look like: a length in characters and a pattern."""

    max_length: int = 100
    pattern: str = ""


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One configured provider, checked and complete but for what discovery adds.

    Times are in seconds. `name` is the table's name and the path segment of its routes.
    """

    name: str
    preset: str = ""
    protocol: Protocol
    title: str = ""

    # the client (RFC 6749 section 2, RFC 5849 section 1.1)
    client_id: str
    client_secret: str = ""
    private_key: str = ""
    private_key_id: str = ""
    token_endpoint_auth_method: AuthMethod | None = None
    token_endpoint_auth_signing_alg: str = ""
    client_secret_jwt: SignedSecret | None = None
    dpop: bool = False

    # the authorization server (RFC 8414 names)
    issuer: str = ""
    issuer_aliases: list[str] = field(default_factory=list)
    issuer_template: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    refresh_endpoint: str = ""
    request_token_url: str = ""
    userinfo_endpoint: str = ""
    jwks_uri: str = ""
    revocation_endpoint: str = ""
    introspection_endpoint: str = ""
    end_session_endpoint: str = ""
    end_session_params: dict[str, str] = field(default_factory=dict)
    authorization_response_iss_parameter_supported: bool | None = None

    # requests
    scope: list[str] = field(default_factory=list)
    scope_delimiter: str = " "
    scope_response_delimiters: str = " ,"
    incremental_scope: bool = False
    authorization_params: dict[str, str] = field(default_factory=dict)
    token_params: dict[str, str] = field(default_factory=dict)
    refresh_params: dict[str, str] = field(default_factory=dict)
    request_token_params: dict[str, str] = field(default_factory=dict)
    parameter_names: dict[str, str] = field(default_factory=dict)
    token_method: Literal["POST", "GET"] = "POST"  # noqa: S105
    token_body: Literal["form", "json"] = "form"  # noqa: S105
    headers: dict[str, str] = field(default_factory=dict)
    response_mode: Literal["query", "form_post"] = "query"
    max_age: int | None = None
    signature_method: SignatureMethod = "HMAC-SHA1"
    realm: str = ""

    # answers
    token_response: dict[str, str] = field(default_factory=dict)
    token_response_format: Literal["json", "form", "any"] = "json"  # noqa: S105
    token_type_check: bool = True
    id_token_signed_response_alg: str = ""
    userinfo_signed_response_alg: str = ""
    required_claims: dict[str, list[str]] = field(default_factory=dict)
    revocation: Revocation = field(default_factory=Revocation)

    # the API
    api_base_url: str = ""
    api_hosts: list[str] = field(default_factory=list)
    token_header: str = "Authorization"  # noqa: S105 - the name of a header
    token_scheme: str = "Bearer"  # noqa: S105

    # the account
    profile: dict[str, str | list[str]] = field(default_factory=dict)
    profile_documents: dict[str, str] = field(default_factory=dict)
    profile_method: Literal["GET", "POST"] = "GET"
    boolean_strings: bool = False
    callback_profile: str = ""
    required_profile: list[str] = field(default_factory=list)
    carry: list[str] | dict[str, CarryField] = field(default_factory=list)

    # the hand-over from a front end (routes/handover.py)
    handover: list[HandOver] = field(default_factory=lambda: ["access_token", "id_token", "code"])
    token_info: TokenInfo | None = None
    handover_redirect_uris: list[str] = field(default_factory=list)

    timeout: float = 10.0
    refresh_leeway: float = 60.0

    #: Values of a preset's own placeholders (`{tenant}`), from the user's table.
    placeholders: dict[str, str] = field(default_factory=dict)
    #: Claims and values that `[access]` asks about when somebody signs in here.
    questions: list[tuple[str, str]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, protocol={self.protocol!r})"

    __str__ = __repr__

    @property
    def identity(self) -> str:
        """What an account id is unique within: the issuer of OpenID Connect, else this table."""
        return self.issuer if self.protocol == "oidc" else self.name

    def carry_fields(self) -> dict[str, CarryField]:
        """The declared carry fields by name."""
        if isinstance(self.carry, dict):
            return self.carry
        return {name: CarryField() for name in self.carry}


decoder_of(Provider)


def fill(template: str, values: dict[str, str]) -> str:
    """Put `values` into the `{placeholders}` of a preset's string; unknown ones stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values.get(match.group(1), match.group(0)), template)


_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


def placeholders_in(template: str) -> list[str]:
    """The names of the `{placeholders}` of a string, in order."""
    return _PLACEHOLDER.findall(template)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an absolute http or https URL. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an absolute http or https URL")
    if parts.username is not None or parts.password is not None or "\\" in url:
        raise ValueError("expected a URL without user name and backslash")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname.lower(), port


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\]")


def plain_url(url: str) -> bool:
    """Whether a URL is visible ASCII with a host that a resolver can be asked for.

    A host in another script is spelt in its ASCII form (`xn--…`, RFC 5891).
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    host = urlsplit(url).netloc.rpartition("@")[2]
    host = re.sub(r":\d*$", "", host)
    return _HOST.fullmatch(host) is not None and len(host) <= 253


def is_loopback(host: str) -> bool:
    """Whether a host name of a URL means this machine (RFC 6761 section 6.3, RFC 8252 section 7.3)."""
    return (
        host in ("localhost", "::1")
        or host.endswith(".localhost")
        or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    )
