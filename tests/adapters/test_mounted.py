"""Applications below a path: everything the gate builds stands below it too, cookies excepted."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.support import PAGE

from .site import Site, site_on, who, whole_way

MOUNT = "/app"


class StrippingProxy(httpx2.HTTPTransport):
    """A reverse proxy that serves the application below `/app` and takes that off on the way."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.decode("ascii")
        assert path.startswith(MOUNT), path
        request.url = request.url.copy_with(raw_path=path.removeprefix(MOUNT).encode() or b"/")
        return super().handle_request(request)


def check(site: Site) -> None:
    """The whole way, and the paths that pages and redirects name."""
    whole_way(site)
    browser = site.browser()
    found = who(browser)
    assert found["login_url"] == "/app/_oauth/spotify/login?next=%2Fwho"
    assert found["account_url"] == "/app/_oauth/"
    sent = urlsplit(browser.get("/call/spotify/me", headers=PAGE).headers["location"])
    assert sent.path == "/app/_oauth/spotify/link"
    # Targets are relative to the application, so that they stay right when it moves.
    assert parse_qs(sent.query)["next"] == ["/call/spotify/me"]
    page = browser.get("/_oauth/", headers=PAGE)
    (style,) = re.findall(r'href="/app(/_oauth/style\.css\?v=\w+)"', page.text)
    assert browser.get(style).headers["content-type"].startswith("text/css")
    assert f'href="{site.base}/_oauth/spotify/login?' in page.text


@pytest.mark.parametrize("base_url", [True, False], ids=["base_url", "no_base_url"])
@pytest.mark.parametrize(
    ("server", "app"),
    [
        ("uvicorn-h11", "mounted_asgi:app"),
        ("hypercorn", "mounted_asgi:app"),
        ("granian", "mounted_asgi:app"),
        ("gunicorn-sync", "mounted_wsgi:app"),
    ],
)
def test_mounted(server: str, app: str, base_url: bool, tmp_path: Path) -> None:
    """Starlette's Mount and Werkzeug's DispatcherMiddleware, with and without a configured base_url."""
    with site_on(server, app, tmp_path, mount=MOUNT, base_url=base_url) as site:
        check(site)
        with httpx2.Client(base_url=site.base.removesuffix(MOUNT)) as outside:
            assert outside.get("/_oauth/session").status_code == 404


@pytest.mark.parametrize("base_url", [True, False], ids=["base_url", "no_base_url"])
@pytest.mark.parametrize(
    ("server", "option"), [("uvicorn-httptools", "--root-path"), ("granian", "--url-path-prefix")]
)
def test_root_path_of_the_server(server: str, option: str, base_url: bool, tmp_path: Path) -> None:
    """A proxy strips the path, and the server is told of it (`--root-path`)."""
    stripping = server.startswith("uvicorn")
    with site_on(
        server,
        "fastapi_app:app",
        tmp_path,
        mount=MOUNT,
        base_url=base_url,
        more=(option, MOUNT),
        ready="/_oauth/providers" if stripping else None,
        transport=StrippingProxy if stripping else httpx2.HTTPTransport,
    ) as site:
        check(site)
