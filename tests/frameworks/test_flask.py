"""`oauthgate.flask`: the visitor and the services by name, and decorators for what a view needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from flask import Flask

import oauthgate
from oauthgate.flask import current_user, login_required, requires, services
from tests.support import BASE, PAGE, SiteUnderTest

JSON = {"accept": "application/json"}


def make_app() -> Flask:
    app = Flask(__name__)

    @app.get("/user/<word>")
    @login_required
    def user(word: str) -> Any:
        return {"word": word, "user_id": current_user.user_id, "name": str(user.__name__)}

    @app.get("/async-user/<word>")
    @login_required
    async def async_user(word: str) -> Any:
        return {"word": word, "user_id": current_user.user_id, "name": str(async_user.__name__)}

    @app.get("/visitor")
    def visitor() -> Any:
        return {"user_id": current_user.user_id, "services": sorted(services)}

    @app.get("/me")
    def me() -> Any:
        return services["spotify"].get("me").json()

    @app.get("/async-me")
    async def async_me() -> Any:
        return services["spotify"].get("me").json()

    @app.get("/needed")
    @requires("spotify")
    def needed() -> Any:
        return services["spotify"].get("me").json()

    @app.get("/async-needed")
    @requires("spotify")
    async def async_needed() -> Any:
        return services["spotify"].get("me").json()

    @app.get("/scope")
    @requires("spotify", scope=["player", "more"])
    def scope() -> Any:
        raise AssertionError("not to be called")

    return app


@pytest.fixture
def browser(config: dict[str, Any]) -> Iterator[httpx2.Client]:
    app = make_app()
    oauthgate.install(app, config)
    transport = httpx2.WSGITransport(app=app)
    with httpx2.Client(transport=transport, base_url=BASE) as client:
        yield client
    app.wsgi_app.close()  # type: ignore[attr-defined] # now the gate


def sign_in(browser: httpx2.Client, provider: str = "spotify") -> None:
    started = browser.get(f"/_oauth/{provider}/login", headers=PAGE)
    browser.get(SiteUnderTest.authorize(started.headers["location"]), headers=PAGE)


@pytest.mark.parametrize("path", ["/user", "/async-user"])
def test_login_required(browser: httpx2.Client, path: str) -> None:
    """Plain and async views alike are for those who are signed in; others are asked to sign in."""
    sent = browser.get(f"{path}/x", headers=PAGE)
    assert sent.status_code == 303
    assert sent.headers["location"] == f"{BASE}/_oauth/?next=%2F{path[1:]}%2Fx"
    refused = browser.get(f"{path}/x", headers=JSON)
    assert (refused.status_code, refused.json()["error"]) == (401, "login_required")
    sign_in(browser)
    answer = browser.get(f"{path}/x").json()
    assert answer["user_id"] == browser.get("/visitor").json()["user_id"]
    assert (answer["word"], answer["name"]) == ("x", path[1:].replace("-", "_"))


@pytest.mark.parametrize("path", ["/me", "/async-me", "/needed", "/async-needed"])
def test_services(browser: httpx2.Client, path: str) -> None:
    """A view finds its service by name, or asks for the link that it needs."""
    answer = browser.get(path, headers=PAGE)
    assert answer.headers["location"] == f"{BASE}/_oauth/spotify/link?next=%2F{path[1:]}"
    assert browser.get(path, headers=JSON).json()["error"] == "link_required"
    assert browser.get("/visitor").json() == {"user_id": None, "services": []}
    sign_in(browser)
    assert browser.get(path).json()["id"] == "1001"
    assert browser.get("/visitor").json()["services"] == ["spotify"]


def test_scope(browser: httpx2.Client) -> None:
    """What is missing of a scope is asked for before the view is called."""
    sign_in(browser)
    refused = browser.get("/scope", headers=JSON)
    assert (refused.status_code, refused.json()["scope"]) == (401, ["more"])


def test_without_a_gate() -> None:
    """An application that was not wrapped is told so; outside a request Flask says that itself."""
    with make_app().test_request_context(), pytest.raises(RuntimeError, match="install"):
        current_user.user_id  # noqa: B018 - reading it is the test
    with pytest.raises(RuntimeError, match="request context"):
        services["spotify"]
