"""oauthgate: your users' accounts at other services, linked by a middleware.

`install(app, "oauthgate.toml")` wraps a Flask, FastAPI or Starlette application in place; `ASGIGate`
and `WSGIGate` wrap any other one. A handler then finds an authenticated HTTP client for every linked
service in `request.state.services`, and the visitor in `request.state.oauth`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .errors import (
    ConfigError,
    ForeignHost,
    GateError,
    NotLinked,
    OAuthGateError,
    RefreshFailed,
    Refused,
    ServiceError,
    StoreError,
    UnknownProvider,
)
from .install import install

if TYPE_CHECKING:
    from .asgi import ASGIGate
    from .clients import AsyncService, SyncService
    from .config import Config
    from .hooks import Event
    from .link_info import LinkInfo
    from .opened import AsyncOpened, Opened, UserInfo, open
    from .records import Profile
    from .services import Services
    from .visits import Visitor
    from .wsgi import WSGIGate

__version__ = "0.1.0"

#: Where the other names are. A module is imported when one of its names is first asked for: a WSGI
#: application never loads what an event loop needs, and naming an error loads neither half of the gate.
_HOMES = {
    "ASGIGate": "asgi",
    "AsyncOpened": "opened",
    "AsyncService": "clients",
    "Config": "config",
    "Event": "hooks",
    "LinkInfo": "link_info",
    "Opened": "opened",
    "Profile": "records",
    "Services": "services",
    "SyncService": "clients",
    "UserInfo": "opened",
    "Visitor": "visits",
    "WSGIGate": "wsgi",
    "open": "opened",
}

__all__ = [
    "ASGIGate",
    "AsyncOpened",
    "AsyncService",
    "Config",
    "ConfigError",
    "Event",
    "ForeignHost",
    "GateError",
    "LinkInfo",
    "NotLinked",
    "OAuthGateError",
    "Opened",
    "Profile",
    "RefreshFailed",
    "Refused",
    "ServiceError",
    "Services",
    "StoreError",
    "SyncService",
    "UnknownProvider",
    "UserInfo",
    "Visitor",
    "WSGIGate",
    "__version__",
    "install",
    "open",
]


if not TYPE_CHECKING:  # else a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
            return found
        # `import oauthgate` alone is enough for `oauthgate.stores`, too.
        if name.isidentifier() and name[0] != "_" and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
