"""One refresh for everybody: many callers in several processes, slow providers, and killed holders.

The provider rotates: an old refresh token dies at once, and using it again revokes the whole family, so
a single second refresh request would lose the link for all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import oauthgate
from oauthgate.leases import LEASE
from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest, site_under_test

from .fleet import fleet, kill_holders, linked_user

MODES = ["asyncio", "threads", "gevent"]
#: How often the whole is repeated; the long run is for a release, not for every commit.
ROUNDS = int(os.environ.get("OAUTHGATE_REFRESH_ROUNDS", "50"))
KILLS = int(os.environ.get("OAUTHGATE_REFRESH_KILLS", "40"))


@pytest.fixture
def user_id(config: dict[str, Any]) -> str:
    """A user with a Spotify link."""
    return linked_user(config)


@pytest.mark.parametrize("mode", MODES)
def test_eighty_callers_one_refresh(
    mode: str, config: dict[str, Any], user_id: str, provider: LocalProvider, tmp_path: Path
) -> None:
    """20 callers in each of 4 processes: exactly one refresh request and 80 successes, every time
    (row 94)."""
    with fleet(mode, config, user_id, tmp_path) as workers:
        for _ in range(ROUNDS):
            provider.expire_access_tokens()
            before = provider.count["token"]
            results = workers.round()
            assert [result["ok"] for result in results] == [20] * 4, results
            assert provider.count["token"] == before + 1


def test_a_token_endpoint_slower_than_the_lease(
    config: dict[str, Any], provider: LocalProvider, tmp_path: Path
) -> None:
    """A living holder keeps its lease, however long the provider takes: three leases, one request.

    The three modes run side by side, each on a store of its own, to wait for them only once.
    """
    config["providers"]["spotify"]["timeout"] = 60
    with contextlib.ExitStack() as stack:
        fleets = []
        for mode in MODES:
            folder = tmp_path / mode
            folder.mkdir()
            own = {
                **config,
                "oauthgate": {**config["oauthgate"], "store": f"sqlite:///{folder}/gate.db"},
            }
            user = linked_user(own)
            fleets.append(stack.enter_context(fleet(mode, own, user, folder, processes=2, callers=5)))
        provider.expire_access_tokens()
        provider.faults.set("token", delay=3 * LEASE)
        before = provider.count["token"]
        for each in fleets:
            for worker in each.workers:
                each.go(worker)
        results = [each.result(worker) for each in fleets for worker in each.workers]
    assert [result["ok"] for result in results] == [5] * 6, results
    assert provider.count["token"] == before + len(MODES)


def test_killed_holders_lose_no_link(
    config: dict[str, Any], user_id: str, provider: LocalProvider, tmp_path: Path
) -> None:
    """`kill -9` of the refreshing process at a random moment, at a provider that grants 30 s of reuse:
    the link stays active, and nobody waits longer than the lease plus 2 s (rows 94, 107)."""
    kill_holders(config, user_id, provider, tmp_path, rounds=KILLS)


def test_a_worker_told_to_stop_keeps_the_rotated_token(
    config: dict[str, Any], provider: LocalProvider
) -> None:
    """A server that shuts down in the middle of a refresh finishes it (row 100): the answer is the only
    copy of the new token."""
    with site_under_test("asgi", config) as site:
        browser = site.browser()
        site.login(browser, "spotify")
        provider.expire_access_tokens()
        provider.faults.set("token", delay=0.5, after=True)
        call = threading.Thread(target=_swallow, args=(site, browser), daemon=True)
        call.start()
        until = time.monotonic() + 5
        while not provider.count["token"] > 1 and time.monotonic() < until:
            time.sleep(0.01)
    call.join(10)
    provider.faults.clear()
    with oauthgate.open(config) as gate:
        (user,) = gate.users()
        assert gate.services(user.user_id)["spotify"].get("me").status_code == 200
        assert user.links[0].state == "active"


def _swallow(site: SiteUnderTest, browser: Any) -> None:
    try:
        browser.get("/call/spotify/me")
    except Exception:
        return
