"""Front ends of other origins: what each answer says, to whom, and what a cache must know (row 67)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.router import PROVIDER_ROUTES, ROUTES
from tests.support import SiteUnderTest

FRONT, OTHER = "https://front.example", "http://localhost:5173"
#: Every route with its methods, for one of the providers.
EVERY = {
    **{path: set(methods) for path, methods in ROUTES.items()},
    **{f"/spotify/{path}": set(methods) for path, methods in PROVIDER_ROUTES.items()},
}
FILES = ["/style.css", "/oauthgate.js", "/popup.js"]
CORS = "access-control-"


@pytest.fixture
def site(make_site: Callable[[], SiteUnderTest], config: dict[str, Any]) -> SiteUnderTest:
    config["oauthgate"]["allowed_origins"] = [FRONT, OTHER]
    return make_site()


def granted(answer: httpx2.Response) -> dict[str, str]:
    return {
        name.removeprefix(CORS): value for name, value in answer.headers.items() if name.startswith(CORS)
    }


@pytest.mark.parametrize("path", [*EVERY, *FILES, "/nosuch", "/nosuch/login"])
def test_every_answer_depends_on_the_origin(site: SiteUnderTest, path: str) -> None:
    """With an Origin, without one, an error or a file: all say so, and only a listed one may read."""
    for method in ("GET", "POST", "HEAD", "OPTIONS"):
        for origin in (FRONT, OTHER, "https://evil.example", None):
            headers = {"origin": origin} if origin else {}
            answer = site.browser().request(method, f"/_oauth{path}", headers=headers)
            assert answer.status_code < 500
            assert "origin" in answer.headers["vary"].lower()
            if method == "OPTIONS" or origin not in (FRONT, OTHER):
                assert granted(answer) == {}
            else:
                assert granted(answer) == {
                    "allow-origin": origin,
                    "allow-credentials": "true",
                    "expose-headers": "Retry-After",
                }


@pytest.mark.parametrize("path", EVERY)
def test_preflight(site: SiteUnderTest, path: str) -> None:
    """Allowed are a route's own methods and the headers that it reads, and nothing else."""
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        for headers in ("", "x-csrf-token", "Content-Type, X-CSRF-Token", "authorization"):
            asked = {f"{CORS}request-method": method, f"{CORS}request-headers": headers}
            answer = site.browser().options(f"/_oauth{path}", headers={"origin": FRONT, **asked})
            assert (answer.status_code, answer.content) == (204, b"")
            assert "set-cookie" not in answer.headers
            if method in EVERY[path]:
                assert granted(answer) == {
                    "allow-origin": FRONT,
                    "allow-credentials": "true",
                    "allow-methods": ", ".join(sorted(EVERY[path])),
                    "allow-headers": "authorization, content-type, x-csrf-token",
                    "max-age": "600",
                }
            else:
                assert granted(answer) == {}
    for headers in ("x-other", "x-csrf-token, x-other", "*", "cookie"):
        asked = {f"{CORS}request-method": "POST", f"{CORS}request-headers": headers}
        answer = site.browser().options(f"/_oauth{path}", headers={"origin": FRONT, **asked})
        assert granted(answer) == {}


def test_preflight_of_what_is_not_there(site: SiteUnderTest) -> None:
    """A route or provider that does not exist allows nothing."""
    asked = {"origin": FRONT, f"{CORS}request-method": "POST"}
    for path in ("/nosuch", "/nosuch/login", "/spotify/nosuch"):
        answer = site.browser().options(f"/_oauth{path}", headers=asked)
        assert answer.status_code == 404
        assert not any("methods" in name or "max-age" in name for name in granted(answer))


def test_two_origins_are_none(site: SiteUnderTest) -> None:
    """A repeated header, as a broken proxy makes it, is of nobody."""
    if site.kind == "wsgi":
        headers: Any = {"origin": f"{FRONT},{FRONT}"}  # how WSGI servers join it
    else:
        headers = [("origin", FRONT), ("origin", FRONT)]
    assert granted(site.browser().get("/_oauth/session", headers=headers)) == {}


def test_host_that_is_not_served(make_site: Callable[[], SiteUnderTest], config: dict[str, Any]) -> None:
    """An answer from before any route says it as well."""
    config["oauthgate"]["allowed_origins"] = [FRONT]
    del config["oauthgate"]["base_url"]
    answer = (
        make_site()
        .browser()
        .get("/_oauth/session", headers={"origin": FRONT, "host": "elsewhere.example"})
    )
    assert answer.status_code == 421
    assert granted(answer)["allow-origin"] == FRONT and "Origin" in answer.headers["vary"]
