"""The story in a real browser: what SameSite, redirects from site to site and the CSP really do there.

App and providers are different sites (`localhost` and `127.0.0.1`), as they are in the world.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

import oauthgate
from oauthgate.testing import running, serve
from tests.servers import free_port
from tests.support import Kind, flask_app, make_config, make_provider, starlette_app
from tests.test_demo import demonstration

from .conftest import SIZES, OpenPage


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()


def link(page: Page, name: str) -> None:
    page.get_by_role("link", name=name).click()


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


@pytest.mark.parametrize("app", ["fastapi", "flask"])
def test_now_playing(app: str, open_page: OpenPage) -> None:
    """Sign in, link, now playing, post, unlink, sign out: what `make demo` tells a person to click."""
    with demonstration(app) as demo:
        page = open_page()
        page.goto(demo.base)
        link(page, "Sign in with Twitter")
        button(page, "Allow as Ada Lovelace")
        heading(page, "Hello, Ada Lovelace")
        link(page, "Link Spotify")
        heading(page, "Link your Spotify account")
        button(page, "Link Spotify")
        button(page, "Allow as Ada Lovelace")
        expect(page.get_by_text("Now playing")).to_be_visible()
        button(page, "Post to Twitter")
        expect(page.get_by_role("status")).to_have_text("Posted.")
        link(page, "Account")
        heading(page, "Your account")
        button(page, "Unlink: Spotify, Ada Lovelace")
        expect(page.get_by_role("status")).to_contain_text("no longer linked")
        button(page, "Link Example ID")
        button(page, "Allow as Ada Lovelace")
        heading(page, "Your account")
        expect(page.get_by_role("button", name="Unlink: Example ID, Ada Lovelace")).to_be_visible()
        page.goto(demo.base)
        expect(page.get_by_role("link", name="Link Spotify")).to_be_visible()
        button(page, "Sign out")
        heading(page, "You are signed out")
        page.goto(demo.base)
        expect(page.get_by_role("link", name="Sign in with Twitter")).to_be_visible()
        assert page.context.cookies(demo.base) == []


def test_sign_in_and_out_with_openid_connect(open_page: OpenPage) -> None:
    """Signing out ends the session at the OpenID provider too, and comes back to the app."""
    with demonstration("fastapi") as demo:
        page = open_page()
        page.goto(demo.base)
        link(page, "Other ways to sign in")
        link(page, "Sign in with Example ID")
        button(page, "Allow as Grace Hopper")
        heading(page, "Your account")
        page.get_by_role("button", name="Sign out", exact=True).click()
        page.wait_for_url(f"{demo.base}/")
        link(page, "Other ways to sign in")
        link(page, "Sign in with Example ID")
        expect(page.get_by_role("button", name="Allow as Grace Hopper")).to_be_visible()


def test_denied_then_agreed(open_page: OpenPage) -> None:
    """Who denies gets a page that says so and leads back; nobody is signed in by that."""
    with demonstration("flask") as demo:
        page = open_page()
        page.goto(demo.base)
        link(page, "Sign in with Twitter")
        button(page, "Deny")
        heading(page, "Access was not granted")
        link(page, "Back to localhost")
        link(page, "Sign in with Twitter")
        button(page, "Allow as Ada Lovelace")
        heading(page, "Hello, Ada Lovelace")


@contextmanager
def serving(kind: Kind, config: dict[str, Any], port: int) -> Iterator[None]:
    """The app of the other tests, with a gate, on a port."""
    if kind == "asgi":
        asgi_app = starlette_app()
        oauthgate.install(asgi_app, config)
        with serve(asgi_app, port=port):
            yield
        return
    wsgi_app = flask_app()
    oauthgate.install(wsgi_app, config)
    server = make_server("127.0.0.1", port, wsgi_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        wsgi_app.wsgi_app.close()  # type: ignore[attr-defined]


def test_form_post(kind: Kind, open_page: OpenPage, tmp_path: Path) -> None:
    """`form_post`: the answer is a POST from the provider's site, on which a browser sends no Lax
    cookie. The flow's own cookie arrives with it, the session's on the GET that follows a link."""
    port = free_port()
    base = f"http://localhost:{port}"
    provider = make_provider(base)
    with running(provider) as url:
        config = make_config(url, tmp_path, base)
        config["providers"]["corp"]["response_mode"] = "form_post"
        config["providers"]["spotify"]["response_mode"] = "form_post"
        with serving(kind, config, port):
            page = open_page()
            for name in ("corp", "spotify"):
                # The first time a login, then a link to the signed-in user.
                page.goto(f"{base}/_oauth/{name}/{'login' if name == 'corp' else 'link'}?next=/who")
                if name == "spotify":
                    button(page, "Link Spotify")
                button(page, "as Ada Lovelace")
                if name == "corp":
                    flow = [item for item in page.context.cookies(base) if "-flow-" in item["name"]]
                    assert [(item["sameSite"], item["secure"]) for item in flow] == [("None", True)]
                button(page, "Continue")
                page.wait_for_url(f"{base}/who")
            session = [item for item in page.context.cookies(base) if item["name"] == "oauthgate"]
            assert [(item["sameSite"], item["httpOnly"]) for item in session] == [("Lax", True)]
            who = page.evaluate("fetch('/who').then(reply => reply.json())")
            assert who["services"] == ["corp", "spotify"]
            assert "code=" not in page.evaluate("document.referrer + location")
    assert [message.method for message in provider.received("authorize")].count("POST") == 2


@pytest.mark.parametrize("size", SIZES)
def test_pages_fit(size: str, open_page: OpenPage, picture: Callable[[Page, str], None]) -> None:
    """On a phone and a desktop, light and dark, no page scrolls sideways or hides a button."""
    # The pictures show the address that people see who run the demonstration.
    with demonstration("fastapi", 8000 if os.environ.get("OAUTHGATE_SCREENSHOTS") else None) as demo:
        page = open_page(size)

        def shown(name: str, text: str) -> None:
            expect(page.get_by_text(text).first).to_be_visible()
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= SIZES[size]["viewport"]["width"], name
            for control in page.get_by_role("button").or_(page.get_by_role("link")).all():
                box = control.bounding_box()
                assert box is not None and box["x"] >= 0, name
                assert box["x"] + box["width"] <= width, name
            picture(page, f"{name}-{size}")

        page.goto(demo.base)
        shown("welcome", "What are you listening to?")
        link(page, "Sign in with Twitter")
        shown("provider", "Sign in to continue")
        button(page, "Allow as Ada Lovelace")
        link(page, "Link Spotify")
        shown("link", "Link your Spotify account")
        button(page, "Link Spotify")
        button(page, "Allow as Ada Lovelace")
        shown("home", "Now playing")
        link(page, "Account")
        shown("account", "Where you are signed in")
        page.goto(f"{demo.base}/_oauth/spotify/callback?state=unknown&code=unknown")
        shown("error", "This sign-in did not start here")
