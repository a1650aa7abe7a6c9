"""A certified provider with refresh token rotation: reuse of an old token revokes the whole grant."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import oauthgate
from oauthgate.stepping import iterate, run
from tests.servers import Missing, login_oidc_provider, oidc_provider
from tests.support import BASE, redirect_uri, site_under_test

from .fleet import fleet

ROUNDS = int(os.environ.get("OAUTHGATE_OIDC_REFRESH_ROUNDS", "200"))
SECRET = "spotify-secret-" + "s" * 24


def client() -> dict[str, Any]:
    """The metadata with which we are registered there."""
    return {
        "client_id": "spotify-client",
        "client_secret": SECRET,
        "redirect_uris": [redirect_uri("spotify")],
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": "openid offline_access",
    }


def test_two_hundred_rotations_over_four_processes(tmp_path: Path) -> None:
    """In each round the access token is past its time and 4 processes call at once: one of them rotates.

    A second refresh request in any round would use a dead refresh token, and the provider would end the
    grant: that the link is alive after all rounds shows that there was none.
    """
    settings = {
        "clients": [client()],
        "accounts": [{"sub": "ada", "name": "Ada Lovelace"}],
        "rotate_refresh_token": True,
    }
    try:
        server = oidc_provider(settings)
        issuer = server.__enter__()
    except Missing as missing:
        if os.environ.get("OAUTHGATE_TEST_ALL") == "1":
            raise
        pytest.skip(str(missing))
    try:
        _rotate(issuer, tmp_path)
    finally:
        server.__exit__(None, None, None)


def _rotate(issuer: str, folder: Path) -> None:
    config = {
        "oauthgate": {"base_url": BASE, "store": f"sqlite:///{folder / 'gate.db'}"},
        "providers": {
            "spotify": {
                "preset": "google",
                "issuer": issuer,
                "client_id": "spotify-client",
                "client_secret": SECRET,
                "token_endpoint_auth_method": "client_secret_basic",
                "scope": ["openid", "offline_access"],
                "authorization_params": {"prompt": "consent"},
                "api_base_url": issuer,
                "api_hosts": [],
            }
        },
    }
    with site_under_test("wsgi", config) as site, httpx2.Client() as person:
        browser = site.browser()
        started = browser.get("/_oauth/spotify/login?next=/who")
        back = login_oidc_provider(person, started.headers["location"]).send(browser)
        assert back.status_code == 303, back.text
        user_id = str(browser.get("/who").json()["user_id"])
    with oauthgate.open(config) as gate, fleet("threads", config, user_id, folder, callers=5) as workers:
        seen = set()
        for _ in range(ROUNDS):
            seen.add(_expire(gate))
            results = workers.round()
            assert [result["ok"] for result in results] == [5] * 4, results
        (user,) = gate.users()
        assert user.links[0].state == "active"
        assert len(seen) == ROUNDS


def _expire(gate: oauthgate.Opened) -> str:
    """Have the stored access token be past its time; the refresh token that will be used up next."""
    accounts = gate._gate.accounts
    (user,) = iterate(gate._gate.vault.users())
    (link,) = user.links
    past = time.time() - 1
    old = msgspec.structs.replace(link.token, expires_at=past, received_at=past - 3600)
    changed = run(
        accounts.replace_link(user.id, link, lambda held: msgspec.structs.replace(held, token=old))
    )
    assert changed is not None and changed.token == old
    return link.token.refresh_token
