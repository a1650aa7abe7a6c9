"""What a handler gets: the mapping of linked services, by provider and account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .clients import AsyncService, SyncService
from .errors import NotLinked, UnknownProvider
from .link_auth import CurrentUser, Grant
from .providers import Provider
from .records import Link, Session, User

if TYPE_CHECKING:
    from .io import IO
    from .refresh import Refresher

C = TypeVar("C", AsyncService, SyncService)


class Source(Generic[C]):
    """What the services of all visitors of one gate have in common.

    `standing` makes what tells whether a session still stands. `twin` gives the same services as
    blocking clients; None where they block anyway.
    """

    __slots__ = ("io", "make", "providers", "refresher", "standing", "twin")

    def __init__(
        self,
        make: type[C],
        io: IO,
        refresher: Refresher,
        providers: Mapping[str, Provider],
        standing: Callable[[User, Session], CurrentUser],
        twin: Callable[[User | None, Session | None], Services[SyncService]] | None = None,
    ) -> None:
        self.make: type[C] = make
        self.io = io
        self.refresher = refresher
        self.providers = providers
        self.standing = standing
        self.twin = twin


class Services(Mapping[str, C], Generic[C]):
    """The visitor's linked services: `services["spotify"]`, or `services["spotify:work"]` for one of
    several accounts by its label or account id.

    A provider that is configured but not linked raises `NotLinked`, which becomes by itself the answer
    that gets it linked; one that is not configured raises `UnknownProvider`.
    """

    __slots__ = ("_made", "_session", "_source", "_user")

    def __init__(
        self, source: Source[C], user: User | None = None, session: Session | None = None
    ) -> None:
        # Made for every signed-in request, so nothing is worked out here. With a session, each call
        # looks whether that still stands.
        self._source: Source[C] = source
        self._user = user
        self._session = session
        self._made: dict[tuple[str, str], C] | None = None

    def __repr__(self) -> str:
        return f"Services({sorted(self)})"

    @property
    def sync(self) -> Services[SyncService]:
        """The same services as blocking clients, for plain `def` handlers in a thread pool."""
        if self._source.twin is None:
            return cast("Services[SyncService]", cast(object, self))
        return self._source.twin(self._user, self._session)

    def __getitem__(self, name: str) -> C:
        user, link = self._find(name)
        return self._client(user, link)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self._find(name) is not None
        except (NotLinked, UnknownProvider):
            return False

    def _find(self, name: str) -> tuple[User, Link]:
        provider, _, which = name.partition(":")
        providers = self._source.providers
        if provider not in providers:
            configured = ", ".join(sorted(providers)) or "none"
            raise UnknownProvider(f"no provider {provider!r} is configured; there are: {configured}")
        user = self._user
        links = user.links_of(provider) if user is not None else []
        if which:
            links = [link for link in links if which in (link.label, link.account_id)]
        if not links or user is None:
            raise NotLinked(provider)
        for link in links:
            if link.state == "active":
                return user, link
        raise NotLinked(provider, reason="reauth_required")

    def _client(self, user: User, link: Link) -> C:
        made = self._made
        if made is None:
            made = self._made = {}
        key = (link.provider, link.account_id)
        client = made.get(key)
        if client is None:
            source, session = self._source, self._session
            current = source.standing(user, session) if session is not None else None
            grant = Grant(source.refresher, source.providers[link.provider], user.id, link, current)
            client = made[key] = source.make(grant, source.io)
        return client

    @property
    def _active(self) -> list[Link]:
        user, providers = self._user, self._source.providers
        if user is None:
            return []
        return [link for link in user.links if link.state == "active" and link.provider in providers]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(link.provider for link in self._active))

    def __len__(self) -> int:
        return len({link.provider for link in self._active})

    def all(self, provider: str) -> list[C]:
        """A client for every account of one provider that can be used, the default one first."""
        user = self._user
        links = [link for link in self._active if link.provider == provider]
        links.sort(key=lambda link: not link.default)
        return [self._client(user, link) for link in links] if user is not None else []

    def require(self, name: str, *, scope: list[str] | tuple[str, ...] = ()) -> C:
        """The client, once all of `scope` is granted. Raises `NotLinked` with what is missing."""
        client = self[name]
        missing = tuple(item for item in scope if item not in client.scope)
        if missing:
            raise NotLinked(name.partition(":")[0], reason="scope", scope=missing)
        return client
