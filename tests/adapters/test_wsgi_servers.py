"""Flask under gunicorn (sync, gthread, gevent; with and without --preload) and granian, for real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .serving import WSGI_SERVERS
from .site import Site, no_bleeding, site_on, whole_way


@pytest.fixture(params=list(WSGI_SERVERS), scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Flask site with two workers on each server, shared by the tests of this file."""
    folder: Path = tmp_path_factory.mktemp("site")
    with site_on(request.param, "flask_app:app", folder) as found:
        yield found


@pytest.fixture
def signed_in(site: Site) -> httpx2.Client:
    """A browser that is signed in with spotify as ada."""
    browser = site.browser()
    site.login(browser, "spotify")
    (site.folder / "go").unlink(missing_ok=True)
    return browser


def test_no_thread_of_ours(site: Site) -> None:
    """A login, a link and API calls start no thread: the core is stepped on the server's own."""
    before = processes(site)
    whole_way(site)
    after = processes(site)
    assert set(before) == set(after), "a worker was replaced"
    for process in after.values():
        # gthread works in a pool of its own, which grows on demand.
        assert {re.sub(r"ThreadPoolExecutor-\d+_\d+", "pool", name) for name in process["threads"]} <= {
            "MainThread",
            "pool",
        }
    if site.server.startswith("gunicorn-sync"):
        # Not one that Python does not know of either.
        assert [process["tasks"] for process in after.values()] == [1, 1]


def test_whole_way(site: Site) -> None:
    """Sign in, link, call from a handler, 20 at once, unlink, sign out, on two workers."""
    whole_way(site)


def test_no_bleeding(site: Site) -> None:
    """200 interleaved requests of two users, and nobody meets the other's account (row 61)."""
    no_bleeding(site)


def test_stream_is_not_held_back(site: Site, signed_in: httpx2.Client) -> None:
    """The first event arrives while the handler still waits to write the second (row 112)."""
    with signed_in.stream("GET", "/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "set-cookie" not in answer.headers
        parts = answer.iter_text()
        assert next(parts) == "data: first\n\n"
        # The handler goes on only now: a gate that collects the answer would wait for ever.
        (site.folder / "go").touch()
        assert "".join(parts) == "data: 1001\n\n"


def processes(site: Site) -> dict[int, dict[str, Any]]:
    """What both workers say of themselves, by process id."""
    found: dict[int, dict[str, Any]] = {}
    for _ in range(500):
        # A connection of its own each time, so that the kernel picks a worker anew.
        answer = httpx2.get(f"{site.base}/process").json()
        found[answer["pid"]] = answer
        if len(found) == 2:
            break
    assert len(found) == 2, "one of the two workers never answered"
    return found
