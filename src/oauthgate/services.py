"""What a handler gets: the mapping of linked services, by provider and account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .clients import AsyncService, SyncService
from .errors import NotLinked, UnknownProvider
from .link_auth import CurrentUser, Grant
from .providers import Provider
from .records import Link

if TYPE_CHECKING:
    from .io import IO
    from .refresh import Refresher

C = TypeVar("C", AsyncService, SyncService)


class Services(Mapping[str, C], Generic[C]):
    """The visitor's linked services: `services["spotify"]`, or `services["spotify:work"]` for one of
    several accounts by its label or account id.

    A provider that is configured but not linked raises `NotLinked`, which becomes by itself the answer
    that gets it linked; one that is not configured raises `UnknownProvider`.
    """

    def __init__(
        self,
        make: type[C],
        io: IO,
        refresher: Refresher,
        providers: Mapping[str, Provider],
        user_id: str | None,
        links: list[Link],
        twin: Callable[[], Services[SyncService]] | None = None,
        current: CurrentUser | None = None,
    ) -> None:
        self._make: type[C] = make
        self._twin = twin
        self._current = current
        self._io = io
        self._refresher = refresher
        self._providers = providers
        self._user_id = user_id
        self._links = links
        self._made: dict[tuple[str, str], C] = {}

    def __repr__(self) -> str:
        return f"Services({sorted(self)})"

    @property
    def sync(self) -> Services[SyncService]:
        """The same services as blocking clients, for plain `def` handlers in a thread pool."""
        return (
            self._twin() if self._twin is not None else cast("Services[SyncService]", cast(object, self))
        )

    def __getitem__(self, name: str) -> C:
        provider, _, which = name.partition(":")
        if provider not in self._providers:
            configured = ", ".join(sorted(self._providers)) or "none"
            raise UnknownProvider(f"no provider {provider!r} is configured; there are: {configured}")
        links = [link for link in self._links if link.provider == provider]
        if which:
            links = [link for link in links if which in (link.label, link.account_id)]
        links.sort(key=lambda link: not link.default)
        if not links or self._user_id is None:
            raise NotLinked(provider)
        active = [link for link in links if link.state == "active"]
        if not active:
            raise NotLinked(provider, reason="reauth_required")
        return self._client(active[0])

    def _client(self, link: Link) -> C:
        key = (link.provider, link.account_id)
        client = self._made.get(key)
        if client is None:
            grant = Grant(
                self._refresher,
                self._providers[link.provider],
                self._user_id or "",
                link,
                self._current,
            )
            client = self._made[key] = self._make(grant, self._io)
        return client

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self[name] is not None
        except (NotLinked, UnknownProvider):
            return False

    def __iter__(self) -> Iterator[str]:
        seen = {link.provider: None for link in self._links if link.state == "active"}
        return iter([name for name in seen if name in self._providers])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def all(self, provider: str) -> list[C]:
        """A client for every account of one provider that can be used, the default one first."""
        links = [
            link
            for link in self._links
            if link.provider == provider and link.state == "active" and provider in self._providers
        ]
        links.sort(key=lambda link: not link.default)
        return [self._client(link) for link in links]

    def require(self, name: str, *, scope: list[str] | tuple[str, ...] = ()) -> C:
        """The client, once all of `scope` is granted. Raises `NotLinked` with what is missing."""
        client = self[name]
        missing = tuple(item for item in scope if item not in client.scope)
        if missing:
            raise NotLinked(name.partition(":")[0], reason="scope", scope=missing)
        return client
