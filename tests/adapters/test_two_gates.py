"""Two gates in one process: other prefixes, cookies, stores and keys, and nothing in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site import two_sites_on


@pytest.mark.parametrize(
    ("server", "app"), [("uvicorn-h11", "two_gates:asgi"), ("gunicorn-sync", "two_gates:wsgi")]
)
def test_two_gates(server: str, app: str, tmp_path: Path) -> None:
    """One browser is ada at the first gate and grace at the second; leaving one keeps the other."""
    with two_sites_on(server, app, tmp_path) as (one, two):
        browser = one.browser()
        one.login(browser, "spotify", "ada")
        assert browser.get("/one/who").json()["links"] == ["spotify:1001"]
        assert browser.get("/two/who").json()["user_id"] is None

        two.login(browser, "spotify", "grace")
        two.link(browser, "twitter", "grace")
        assert browser.get("/one/who").json()["links"] == ["spotify:1001"]
        assert browser.get("/two/who").json()["links"] == ["spotify:1002", "twitter:1002"]
        assert browser.get("/one/call/spotify/me").json()["id"] == "1001"
        assert browser.get("/two/call/twitter/me").json()["id"] == "1002"
        assert browser.get("/one/who").json()["account_url"] == "/_one/"
        assert browser.get("/two/who").json()["account_url"] == "/_two/"

        names = {item.name: item.value or "" for item in browser.cookies.jar}
        assert set(names) == {"one-session", "two-session"}
        # A session of one gate means nothing under the cookie name of the other.
        swapped = {"cookie": f"one-session={names['two-session']}; two-session={names['one-session']}"}
        other = one.browser()
        assert other.get("/one/who", headers=swapped).json()["user_id"] is None
        assert other.get("/two/who", headers=swapped).json()["user_id"] is None

        assert one.post(browser, "/logout").status_code == 200
        assert browser.get("/one/who").json()["user_id"] is None
        assert browser.get("/two/who").json()["links"] == ["spotify:1002", "twitter:1002"]
        assert (tmp_path / "one.db.key").read_bytes() != (tmp_path / "two.db.key").read_bytes()
