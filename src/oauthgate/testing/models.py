"""What a local provider is told before it starts: its clients and its accounts.

Owns: `Client` (registration metadata in the words of RFC 7591 section 2; for OAuth 1.0a the
client credentials of RFC 5849 section 1.1) and `Account` (a person one can sign in as).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none", "private_key_jwt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application registered at the local provider, for OAuth 1.0a and OAuth 2 alike.

    `client_name` is what people read on the pages (the `client_id` if there is none).
    `scope` limits what the client may ask for (None: whatever the provider supports).
    `rsa_public_key` is the PEM public key that checks RSA-SHA1 signatures; `jwks` holds the
    public keys that check `private_key_jwt`. The two `..._signed_response_alg` override the
    provider's own choice; `userinfo_signed_response_alg` makes userinfo answer with a JWT. `extra` is
    what `token_info` tells of a token of this client's besides, such as a number for it.
    """

    client_id: str
    client_name: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    redirect_uris: Sequence[str] = ()
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 (a method's name)
    jwks: Mapping[str, Any] | None = field(default=None, repr=False)
    post_logout_redirect_uris: Sequence[str] = ()
    scope: Sequence[str] | None = None
    rsa_public_key: str | None = field(default=None, repr=False)
    id_token_signed_response_alg: str | None = None
    userinfo_signed_response_alg: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        method = self.token_endpoint_auth_method
        if method not in AUTH_METHODS:
            known = ", ".join(AUTH_METHODS)
            raise ValueError(f"token_endpoint_auth_method is {method!r}; expected one of {known}")
        if method.startswith("client_secret_") and not self.client_secret:
            raise ValueError(f"client {self.client_id!r}: {method} needs a client_secret")
        if method == "private_key_jwt" and not self.jwks:
            raise ValueError(f"client {self.client_id!r}: private_key_jwt needs jwks")
        for uri in (*self.redirect_uris, *self.post_logout_redirect_uris):
            parts = urlsplit(uri)
            if not parts.scheme or "#" in uri:
                raise ValueError(f"{uri!r} is not an absolute URI without a fragment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person with an account at the provider; `extra` are more claims for userinfo and me."""

    id: str
    username: str
    name: str | None = None
    email: str | None = None
    email_verified: bool = True
    picture: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_ACCOUNTS = (
    Account(id="1001", username="ada", name="Ada Lovelace", email="ada@example.com"),
    Account(id="1002", username="grace", name="Grace Hopper", email="grace@example.com"),
)
