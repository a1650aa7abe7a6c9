"""The gate outside a request: a cron job or a queue worker acts for stored users.

`async with oauthgate.open("oauthgate.toml") as gate` for asynchronous code, `with …` for blocking code:
the same store, the same refresh and the same leases as the web workers'.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .clients import AsyncService, SyncService
from .config import Config
from .gate import Gate
from .hooks import Hook
from .io_async import AsyncIO
from .io_blocking import BlockingIO
from .link_info import LinkInfo, info
from .records import User
from .services import Services
from .stepping import iterate, run


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A stored user: its id, its links (without tokens), and since when it exists (Unix seconds)."""

    user_id: str
    links: tuple[LinkInfo, ...]
    created: float


def _user_info(user: User) -> UserInfo:
    return UserInfo(user.id, tuple(info(link) for link in user.links), user.created)


class AsyncOpened:
    """An opened gate for asynchronous code."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def services(self, user_id: str) -> Services[AsyncService]:
        """The services of a user; empty for one that does not exist. Raises `GateError` 503."""
        found = await self._gate.vault.user(user_id)
        user = found[0] if found else None
        return Services(self._gate.source(AsyncService), user)

    async def users(self) -> AsyncIterator[UserInfo]:
        """Every stored user. Raises `GateError` 503."""
        async for user in self._gate.vault.users():
            yield _user_info(user)


class Opened:
    """An opened gate for blocking code."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def services(self, user_id: str) -> Services[SyncService]:
        """The services of a user; empty for one that does not exist. Raises `GateError` 503."""
        found = run(self._gate.vault.user(user_id))
        user = found[0] if found else None
        return Services(self._gate.source(SyncService), user)

    def users(self) -> Iterator[UserInfo]:
        """Every stored user. Raises `GateError` 503."""
        for user in iterate(self._gate.vault.users()):
            yield _user_info(user)


class Opening:
    """What `oauthgate.open` returns: enter it with `async with` or with `with`."""

    def __init__(self, config: Config, hooks: Mapping[str, Hook] | None) -> None:
        self._config = config
        self._hooks = hooks
        self._gate: Gate | None = None

    async def __aenter__(self) -> AsyncOpened:
        self._gate = Gate(self._config, AsyncIO(self._config.transport), hooks=self._hooks)
        return AsyncOpened(self._gate)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._gate is not None:
            await self._gate.close()

    def __enter__(self) -> Opened:
        self._gate = Gate(self._config, BlockingIO(), hooks=self._hooks)
        return Opened(self._gate)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._gate is not None:
            run(self._gate.close())


def open(
    config: Config | str | Path | Mapping[str, Any],
    *,
    hooks: Mapping[str, Hook] | None = None,
) -> Opening:
    """Open a gate without a web application. Raises `ConfigError`.

    `config` and `hooks` are what `install` takes.
    """
    return Opening(Config.load(config), hooks)
