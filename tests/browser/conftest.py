"""A real browser for the tests of this folder: the system's Chromium, driven by Playwright.

Set `OAUTHGATE_SCREENSHOTS=1` to write the pictures of `docs/images/` anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PICTURES = {"home", "link", "account", "error"}
IMAGES = Path(__file__).parents[2] / "docs" / "images"
TIMEOUT = 15_000
"""Milliseconds that a page, or a button on it, may take to be there."""
SIZES: dict[str, dict[str, Any]] = {
    "phone": {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 1.5},
    "desktop": {"viewport": {"width": 1200, "height": 800}},
    "dark": {
        "viewport": {"width": 390, "height": 780},
        "device_scale_factor": 1.5,
        "color_scheme": "dark",
    },
}

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, once for the tests of a module.

    Not for the whole session: Playwright keeps an event loop running in this thread meanwhile, in which
    no other test could run one of its own.
    """
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        hint = "no browser: install chromium (apt-get install chromium)"
        if os.environ.get("OAUTHGATE_TEST_ALL") == "1":
            pytest.fail(hint)
        pytest.skip(hint)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Call it for a new visitor with a page of their own.

    At the end every page must have stayed without an error in its console: a breach of a content
    security policy, a file that is not there, a cookie that was refused.
    """
    problems: list[str] = []

    def note(page: Page, said: ConsoleMessage) -> None:
        # An error page's own status is mentioned too, and is as it should be; so is the icon that a
        # browser looks for beside an answer in JSON.
        if said.text.startswith("Failed to load resource: the server responded"):
            if said.location["url"] in (page.url, urljoin(page.url, "/favicon.ico")):
                return
            # A script that asks who is signed in, when nobody is, is mentioned too.
            if "status of 401" in said.text:
                return
        if said.type in ("error", "warning"):
            problems.append(f"{page.url}: {said.text}")

    with ExitStack() as stack:

        def make(size: str = "desktop", **options: Any) -> Page:
            context: BrowserContext = browser.new_context(
                **{**SIZES[size], "reduced_motion": "reduce", "locale": "en", **options}
            )
            stack.callback(context.close)
            context.set_default_timeout(TIMEOUT)
            page = context.new_page()
            page.on("console", lambda said: note(page, said))
            page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
            return page

        yield make
    assert not problems


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Write a page to `docs/images/`, when that was asked for."""

    def write(page: Page, name: str) -> None:
        if os.environ.get("OAUTHGATE_SCREENSHOTS") and name.partition("-")[0] in PICTURES:
            IMAGES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)

    return write
