"""oauthgate: your users' accounts at other services, linked by a middleware.

`install(app, "oauthgate.toml")` wraps a Flask, FastAPI or Starlette application in place; `ASGIGate`
and `WSGIGate` wrap any other one. A handler then finds an authenticated HTTP client for every linked
service in `request.state.services`, and the visitor in `request.state.oauth`.
"""

from __future__ import annotations

from .asgi import ASGIGate
from .clients import AsyncService, SyncService
from .config import Config
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
from .hooks import Event
from .install import install
from .link_info import LinkInfo
from .opened import AsyncOpened, Opened, UserInfo, open
from .records import Profile
from .services import Services
from .visits import Visitor
from .wsgi import WSGIGate

__version__ = "0.1.0"

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
