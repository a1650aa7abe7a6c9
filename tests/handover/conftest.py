"""A site that takes hand-overs from `corp` (OpenID Connect), `spotify` (OAuth 2 with `token_info`) and
`plain` (OAuth 2 without any proof), and the front ends: its own, and another application's."""

from __future__ import annotations

from typing import Any

import pytest

from oauthgate.testing import Client, LocalProvider
from tests.flows.conftest import Switch, clock, provider_url, shared_server

from .steps import APP, FrontEnd

__all__ = ["Switch", "clock", "provider_url", "shared_server"]

SECRETS = {name: f"{name}-secret-{'s' * 24}" for name in ("corp", "other", "spotify")}
NUMBERS = {"corp": 123456, "other": 654321, "spotify": 777}


@pytest.fixture
def config(config: dict[str, Any], provider: LocalProvider, provider_url: str) -> dict[str, Any]:
    """The configuration of every test, with what a hand-over needs."""
    for name, secret in SECRETS.items():
        provider.add_client(
            Client(
                client_id=f"{name}-client",
                client_secret=secret,
                redirect_uris=[APP, f"http://localhost/_oauth/{name}/callback"],
                extra={"app_id": NUMBERS[name]},
            )
        )
    providers = config["providers"]
    providers["corp"]["handover_redirect_uris"] = [APP]
    providers["plain"] = dict(providers["spotify"])
    del providers["twitter"]
    providers["spotify"]["token_info"] = {
        "url": f"{provider_url}/api/token_info", "field": "app_id", "equals": NUMBERS["spotify"],
    }  # fmt: skip
    providers["spotify"]["handover_redirect_uris"] = [APP]
    return config


@pytest.fixture
def app(provider: LocalProvider, provider_url: str, config: dict[str, Any]) -> FrontEnd:
    """The site's own front end, with its client at `corp`."""
    return FrontEnd(provider, provider_url, "corp-client", SECRETS["corp"])


@pytest.fixture
def spotify_app(provider: LocalProvider, provider_url: str, config: dict[str, Any]) -> FrontEnd:
    """The site's own front end, with its client at `spotify`."""
    return FrontEnd(provider, provider_url, "spotify-client", SECRETS["spotify"])


@pytest.fixture
def other_app(provider: LocalProvider, provider_url: str, config: dict[str, Any]) -> FrontEnd:
    """Another application of the same provider's: its tokens must open nothing here."""
    return FrontEnd(provider, provider_url, "other-client", SECRETS["other"])
