"""Django in both modes, its application wrapped by a gate, with `oauthgate.django.GateMiddleware`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import PAGE

from .site import JSON, Site, site_on, whole_way

MODES = {
    "asgi": ("uvicorn-httptools", "django_project:asgi", ("/call", "/acall")),
    "wsgi": ("gunicorn-gthread", "django_project:wsgi", ("/call",)),
}


@pytest.fixture(params=list(MODES), scope="module")
def mode(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def site(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Django project in one of its modes, shared by the tests of this file."""
    server, app, _ = MODES[mode]
    with site_on(server, app, tmp_path_factory.mktemp("site")) as found:
        yield found


def test_whole_way(site: Site, mode: str) -> None:
    """Sign in, link, call from plain and async views, 20 at once, unlink, sign out."""
    whole_way(site, calls=MODES[mode][2])


def test_not_linked_in_a_view(site: Site, mode: str) -> None:
    """Django would answer 500: the middleware redirects a browser and tells a program, in every view."""
    for path in MODES[mode][2]:
        browser = site.browser()
        answer = browser.get(f"{path}/spotify/me?x=1", headers=PAGE)
        assert answer.status_code == 303
        assert answer.headers.get_list("location") == [
            f"{site.base}/_oauth/spotify/link?next=%2F{path[1:]}%2Fspotify%2Fme%3Fx%3D1"
        ]
        assert "content-type" not in answer.headers
        refused = browser.get(f"{path}/twitter/me", headers=JSON)
        assert refused.status_code == 401
        assert refused.headers.get_list("content-type") == ["application/json"]
        assert refused.headers["cache-control"] == "no-store"
        assert refused.json()["provider"] == "twitter"


def test_other_exceptions_stay_djangos(site: Site) -> None:
    """A defect of the application's own is not the gate's to answer."""
    assert site.browser().get("/broken", headers=JSON).status_code == 500
