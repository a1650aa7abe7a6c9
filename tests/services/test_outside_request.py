"""`oauthgate.open`: acting for stored users without a request, async and blocking."""

from __future__ import annotations

import asyncio
from typing import Any

import oauthgate
from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest


def test_blocking_job(site: SiteUnderTest, config: dict[str, Any], provider: LocalProvider) -> None:
    """A blocking job walks the users and calls an API for each, refreshing where needed."""
    for account in ("ada", "grace"):
        site.login(site.browser(), "spotify", account)
    provider.expire_access_tokens()
    found = {}
    with oauthgate.open(config) as gate:
        for user in gate.users():
            spotify = gate.services(user.user_id)["spotify"]
            found[spotify.get("me").json()["username"]] = user.links[0].account_id
    assert found == {"ada": "1001", "grace": "1002"}


def test_async_job(site: SiteUnderTest, config: dict[str, Any]) -> None:
    """The same with an event loop; a user that does not exist has no services."""
    site.login(site.browser(), "twitter")

    async def job() -> list[str]:
        names = []
        async with oauthgate.open(config) as gate:
            async for user in gate.users():
                services = await gate.services(user.user_id)
                names.append((await services["twitter"].get("me")).json()["username"])
            assert list(await gate.services("nobody")) == []
        return names

    assert asyncio.run(job()) == ["ada"]


def test_job_and_web_worker_share_a_refresh(
    site: SiteUnderTest, config: dict[str, Any], provider: LocalProvider
) -> None:
    """A token that a job refreshed is the web worker's token too: no second refresh."""
    browser = site.browser()
    site.login(browser, "spotify")
    provider.expire_access_tokens()
    before = provider.count["token"]
    with oauthgate.open(config) as gate:
        (user,) = gate.users()
        assert gate.services(user.user_id)["spotify"].get("me").status_code == 200
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == before + 1
