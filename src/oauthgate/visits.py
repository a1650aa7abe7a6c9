"""A visit: who a request comes from, decided by one read of the store.

Also what handlers see of it: `request.state.oauth` is a `Visitor`, which holds no token.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import msgspec

from . import sessions
from .asks import seal_ask
from .errors import UnknownProvider
from .link_info import LinkInfo, info
from .records import Profile, Session, User
from .seal import Keys
from .site import Site
from .targets import safe_target


@dataclass(frozen=True, slots=True)
class Visit:
    """A signed-in request: the user's document at `version` and the session that proved itself."""

    user: User
    version: int
    session: Session
    bearer: bool


class Place:
    """What the visitors of one gate have in common."""

    __slots__ = ("keys", "mount", "prefix", "providers")

    def __init__(self, keys: Keys, providers: Container[str], prefix: str, mount: str | None) -> None:
        self.keys = keys
        self.providers = providers
        self.prefix = prefix
        #: The path that the site is mounted below, where that is configured.
        self.mount = mount


class Visitor(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The visitor of a request, for its handler: `request.state.oauth`."""

    # Made for every request of the application: so nothing is worked out in advance, and it is a
    # struct, whose making costs a third of what an `__init__` in Python would.
    _place: Place
    _visit: Visit | None
    _mount: str
    _path: str
    _query: bytes | str

    def __repr__(self) -> str:
        return f"Visitor(signed_in={self._visit is not None})"

    @property
    def user_id(self) -> str | None:
        """The user's opaque id, or None for an anonymous visitor."""
        return self._visit.user.id if self._visit else None

    @property
    def links(self) -> list[LinkInfo]:
        """The visitor's linked accounts."""
        return [info(link) for link in self._visit.user.links] if self._visit else []

    @property
    def profile(self) -> Profile | None:
        """The profile of the account that the visitor signed in with, else of the first one."""
        if self._visit is None:
            return None
        session, user = self._visit.session, self._visit.user
        link = user.link(session.provider, session.account_id)
        if link is None:
            link = user.links[0] if user.links else None
        return link.profile if link else None

    @property
    def csrf_token(self) -> str | None:
        """What a form of the application's that posts to the gate carries as `csrf_token`."""
        if self._visit is None:
            return None
        return sessions.csrf_token(self._place.keys, self._visit.session)

    def login_url(self, provider: str, next: str | None = None, **carry: str) -> str:
        """The path that signs in with `provider` and returns to `next`, or to this page.

        Raises `UnknownProvider`.
        """
        return self._url(provider, "login", next, carry)

    def link_url(self, provider: str, next: str | None = None) -> str:
        """The path of the page that links `provider` and returns. Raises `UnknownProvider`."""
        return self._url(provider, "link", next, {})

    @property
    def account_url(self) -> str:
        """The path of the account page."""
        return f"{self._below()}/"

    def _url(self, provider: str, route: str, next: str | None, carry: dict[str, str]) -> str:
        place = self._place
        if provider not in place.providers:
            raise UnknownProvider(f"no provider {provider!r} is configured")
        query = self._query.decode("latin-1") if isinstance(self._query, bytes) else self._query
        target = next if next is not None else page_target(self._path, query, place.prefix)
        return f"{self._below()}/{provider}/{route}?{urlencode({'next': target, **carry})}"

    def _below(self) -> str:
        place = self._place
        mount = self._mount.rstrip("/") if place.mount is None else place.mount
        return f"{mount}{place.prefix}"


def page_target(path: str, query: str, prefix: str) -> str:
    """A page of the application, given by its decoded path and raw query, as a return target."""
    spelt = quote(path, safe="/-._~!$&'()*+,;=:@")
    return safe_target(f"{spelt}?{query}" if query else spelt, prefix)


def link_page(
    site: Site, keys: Keys, provider: str, target: str, reason: str, scope: Sequence[str]
) -> str:
    """The URL of the page that gets a missing link made and comes back to `target`."""
    query = {"next": target}
    if reason != "not_linked":
        query["reason"] = reason
    if scope:
        query["ask"] = seal_ask(keys, provider, scope)
    return f"{site.url(f'/{provider}/link')}?{urlencode(query)}"
