"""Litestar and Quart: a whole sign-in with calls from async and plain handlers, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import PAGE

from .site import JSON, Site, site_on, whole_way

APPS = {
    "litestar": ("uvicorn-httptools", "litestar_app:app"),
    "quart-uvicorn": ("uvicorn-h11", "quart_app:app"),
    "quart-hypercorn": ("hypercorn", "quart_app:app"),
}


@pytest.fixture(params=list(APPS), scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of each framework, shared by the tests of this file."""
    server, app = APPS[request.param]
    with site_on(server, app, tmp_path_factory.mktemp("site")) as found:
        yield found


def test_whole_way(site: Site) -> None:
    """Sign in, link, call from plain and async handlers, 20 at once, unlink, sign out."""
    whole_way(site, calls=("/call", "/sync"))


def test_not_linked(site: Site) -> None:
    """A browser is sent to link and comes back to its page; a program is told where."""
    for path in ("/call", "/sync"):
        answer = site.browser().get(f"{path}/spotify/me?x=1", headers=PAGE)
        assert answer.status_code == 303
        assert answer.headers.get_list("location") == [
            f"{site.base}/_oauth/spotify/link?next=%2F{path[1:]}%2Fspotify%2Fme%3Fx%3D1"
        ]
        refused = site.browser().get(f"{path}/twitter/me", headers=JSON)
        assert refused.status_code == 401
        assert refused.headers.get_list("content-type") == ["application/json"]
        assert refused.headers["cache-control"] == "no-store"
