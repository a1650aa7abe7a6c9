"""Functions of the application that are told what happens, and two that may refuse it.

A hook is a plain or an async function of one argument, an `Event`. An exception in one is logged and
harms nobody. `login` and `linked` run before anything is stored and may raise `Refused` with a message
for the visitor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, cast, get_args

from .errors import ConfigError, Refused
from .io import IO
from .link_info import LinkInfo, info
from .records import Link

log = logging.getLogger("oauthgate.hooks")

HookName = Literal["login", "linked", "refreshed", "reauth_required", "unlinked", "logout"]
HOOK_NAMES: tuple[str, ...] = get_args(HookName)
_MAY_REFUSE = ("login", "linked")

Hook = Callable[["Event"], object]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to whom. `link` is None for a logout; `new_user` is true at a first sign-in."""

    name: HookName
    user_id: str
    link: LinkInfo | None
    new_user: bool = False


class Hooks:
    """The hooks of one gate."""

    def __init__(self, io: IO, hooks: Mapping[str, Hook]) -> None:
        for name in hooks:
            if name not in HOOK_NAMES:
                raise ConfigError(f"hooks: found {name!r}, expected one of {', '.join(HOOK_NAMES)}")
        self._io = io
        self._hooks = dict(hooks)

    def __repr__(self) -> str:
        return f"Hooks({sorted(self._hooks)})"

    async def run(
        self, name: HookName, user_id: str, link: Link | None, *, new_user: bool = False
    ) -> None:
        """Call the hook of this name, if there is one. Raises `Refused` for `login` and `linked`."""
        hook = self._hooks.get(name)
        if hook is None:
            return
        event = Event(name, user_id, info(link) if link else None, new_user)
        try:
            await self._io.call(hook, event)
        except Refused:
            if name in _MAY_REFUSE:
                raise
            log.error("the hook %s refused what it can only be told of", name)
        except Exception:  # the application's code may raise anything, and it must harm nobody
            log.exception("the hook %s failed", name)


def load_hooks(paths: Mapping[str, str], where: str) -> dict[str, Hook]:
    """Hooks by their import paths, `package.module:function`. Raises `ConfigError`."""
    hooks: dict[str, Hook] = {}
    for name, path in paths.items():
        module, colon, attribute = path.partition(":")
        try:
            if not colon:
                raise ValueError
            found: object = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError):
            raise ConfigError(
                f"{where} {name}: found {path!r}, expected the import path of a function, such as "
                "myapp.hooks:on_login"
            ) from None
        if not callable(found):
            raise ConfigError(f"{where} {name}: {path!r} is not a function")
        hooks[name] = cast("Hook", found)
    return hooks
