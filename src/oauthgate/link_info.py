"""A link as an application sees it: everything but its token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .records import Link, Profile


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link as an application sees it: everything but the token. `linked_at` is Unix seconds."""

    provider: str
    account_id: str
    label: str
    profile: Profile
    scope: tuple[str, ...]
    state: str
    extra: Mapping[str, str] = field(repr=False)
    linked_at: float
    raw_json: bytes = field(repr=False)

    @property
    def raw(self) -> dict[str, Any]:
        """The provider's own profile answer."""
        found: dict[str, Any] = msgspec.json.decode(self.raw_json)
        return found


def info(link: Link) -> LinkInfo:
    """The public side of a link."""
    return LinkInfo(
        provider=link.provider,
        account_id=link.account_id,
        label=link.label,
        profile=link.profile,
        scope=tuple(link.scope),
        state=link.state,
        extra=dict(link.extra),
        linked_at=link.linked_at,
        raw_json=link.raw,
    )
