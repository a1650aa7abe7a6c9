"""Links as a provider's callback makes them, without one."""

from __future__ import annotations

from typing import Any

from oauthgate.records import Link, Profile, Token


def link(
    provider: str,
    account: str,
    *,
    email: str | None = None,
    verified: bool = False,
    claims: dict[str, bool] | None = None,
    **more: Any,
) -> Link:
    """A link of a new account; `claims` are what `[access]` asked for."""
    return Link(
        provider=provider,
        identity=provider,
        account_id=account,
        profile=Profile(id=account, email=email, email_verified=verified),
        token=Token(access_token=f"token-of-{account}"),
        claims=claims or {},
        **more,
    )
