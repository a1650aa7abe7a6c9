"""Real servers, written by others, that the tests run against: see README.md in this folder."""

from __future__ import annotations

from .browser_less import (
    Callback,
    LoginFailed,
    end_session_oidc_provider,
    login_dot,
    login_oauth1,
    login_oidc_provider,
)
from .processes import (
    Missing,
    ServerFailed,
    django_oauth_toolkit,
    ensure_node_modules,
    free_port,
    oauth1_server,
    oidc_provider,
)

__all__ = [
    "Callback",
    "LoginFailed",
    "Missing",
    "ServerFailed",
    "django_oauth_toolkit",
    "end_session_oidc_provider",
    "ensure_node_modules",
    "free_port",
    "login_dot",
    "login_oauth1",
    "login_oidc_provider",
    "oauth1_server",
    "oidc_provider",
]
