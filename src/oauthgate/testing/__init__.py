"""What helps to test an application that uses oauthgate, and to show one without real accounts.

A local provider that speaks OAuth 1.0a, OAuth 2 and OpenID Connect as a real server does, and the tests
that a store must pass.
"""

from __future__ import annotations

from .browser import Callback, SignInError, sign_in, sign_in_async
from .faults import Fault, Faults
from .messages import Message
from .models import Account, Client
from .provider import LocalProvider
from .server import Server, running, serve
from .store_contract import StoreContract

__all__ = [
    "Account",
    "Callback",
    "Client",
    "Fault",
    "Faults",
    "LocalProvider",
    "Message",
    "Server",
    "SignInError",
    "StoreContract",
    "running",
    "serve",
    "sign_in",
    "sign_in_async",
]
