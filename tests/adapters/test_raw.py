"""Bare ASGI and WSGI callables behind the two plain middlewares, and the corners of PEP 3333."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.support import PAGE

from .site import JSON, Site, site_on, who, whole_way

APPS = {
    "asgi": ("uvicorn-httptools", "raw_asgi:app"),
    "wsgi-function": ("gunicorn-sync", "raw_wsgi:function_app"),
    "wsgi-generator": ("gunicorn-gthread", "raw_wsgi:generator_app"),
    "wsgi-generator-gevent": ("gunicorn-gevent", "raw_wsgi:generator_app"),
    "wsgi-generator-granian": ("granian-wsgi", "raw_wsgi:generator_app"),
}


@pytest.fixture(params=list(APPS), scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of each kind, shared by the tests of this file."""
    server, app = APPS[request.param]
    with site_on(server, app, tmp_path_factory.mktemp("site")) as found:
        yield found


def test_whole_way(site: Site) -> None:
    """Applications without a framework have all of it: `scope["state"]`, `environ`."""
    whole_way(site)


def test_not_linked_for_a_navigation(site: Site) -> None:
    """`NotLinked` that the application lets go sends a browser to link, and back to its page."""
    browser = site.browser()
    answer = browser.get("/call/spotify/me?page=2&q=a%26b", headers=PAGE)
    assert answer.status_code == 303
    url = urlsplit(answer.headers["location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{site.base}/_oauth/spotify/link"
    assert parse_qs(url.query)["next"] == ["/call/spotify/me?page=2&q=a%26b"]
    assert browser.get(answer.headers["location"], headers=PAGE).status_code == 200


def test_not_linked_for_a_program(site: Site) -> None:
    """Whatever does not navigate gets a 401 in JSON that names the provider and where to link it."""
    for headers in (JSON, {}, {"sec-fetch-mode": "cors", "accept": "text/html"}):
        answer = site.browser().get("/call/spotify/me", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert (body["error"], body["provider"]) == ("link_required", "spotify")
        assert body["url"].startswith(f"{site.base}/_oauth/spotify/link?")


@pytest.mark.parametrize("site", [name for name in APPS if "generator" in name], indirect=True)
def test_begun_answer_is_replaced(site: Site) -> None:
    """A generator that announced its answer before it found no link is answered for all the same."""
    browser = site.browser()
    assert browser.get("/begun", headers=JSON).status_code == 401
    assert browser.get("/begun", headers=PAGE).status_code == 303
    site.login(browser, "spotify")
    assert browser.get("/begun").json() == "ada"


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The function application under gunicorn."""
    with site_on("gunicorn-sync", "raw_wsgi:function_app", tmp_path_factory.mktemp("wsgi")) as found:
        yield found


def test_write_callable(wsgi: Site) -> None:
    """What a program writes by the callable of `start_response` arrives, in its order (row 112)."""
    browser = wsgi.browser()
    for _ in range(2):
        answer = browser.get("/write")
        assert (answer.status_code, answer.text) == (200, "written by hand")
        wsgi.login(browser, "spotify")


def test_iterable_is_closed(wsgi: Site) -> None:
    """The server closes the application's own iterable, signed in or not (row 112)."""
    browser = wsgi.browser()
    for _ in range(2):
        assert browser.get("/closing").text == "one two"
        assert appears(wsgi.folder / "closed-iterable")
        (wsgi.folder / "closed-iterable").unlink()
        wsgi.login(browser, "spotify")


def test_generator_is_closed(tmp_path: Path) -> None:
    """A generator is closed whether it was read to its end, refused, or left by its client (row 112)."""
    with site_on("gunicorn-sync", "raw_wsgi:generator_app", tmp_path) as site:
        browser = site.browser()
        mark = site.folder / "closed-generator"
        for path, status in (("/who", 200), ("/call/spotify/me", 401), ("/begun", 401)):
            assert browser.get(path).status_code == status
            assert appears(mark)
            mark.unlink()
        with httpx2.Client(base_url=site.base) as client, client.stream("GET", "/who"):
            pass
        assert appears(mark)
        assert who(browser)["user_id"] is None


def appears(path: Path, seconds: float = 10.0) -> bool:
    """Whether the file is there in time: a server closes after it has sent the answer."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
