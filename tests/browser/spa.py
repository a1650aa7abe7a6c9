"""The single-page app at work for the tests of this folder, and all that a script of it could read.

The app is a process of its own; its local providers are in this one, so that a test knows every token
that they have ever given out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from oauthgate.testing import LocalProvider
from tests.servers import free_port
from tests.test_examples import ENVIRONMENT, EXAMPLES, command, local_services, started, write_config

#: Keeps whatever a page's scripts get by `fetch`, headers too, as a property of its window.
RECORDER = """
const original = window.fetch;
window.received = [];
window.fetch = async (...given) => {
  const reply = await original(...given);
  const copy = reply.clone();
  window.received.push([copy.url, [...copy.headers], await copy.text()]);
  return reply;
};
"""
#: What a script can reach without a request: storages, cookies, databases, its window's own properties.
READABLE = """async () => {
  const databases = await indexedDB.databases();
  const caches_ = await caches.keys();
  const own = {};
  for (const name of Object.getOwnPropertyNames(window)) {
    const seen = new Set();
    try { own[name] = JSON.stringify(window[name], (key, value) => {
      if (typeof value === "object" && value !== null) {
        if (seen.has(value)) return undefined;
        seen.add(value);
      }
      return value;
    }); } catch (error) { own[name] = String(error); }
  }
  return {
    cookie: document.cookie,
    local: JSON.stringify(localStorage),
    session: JSON.stringify(sessionStorage),
    databases, caches_, own,
    page: document.documentElement.outerHTML,
    address: location.href, referrer: document.referrer, name: window.name,
    history: JSON.stringify(history.state),
    entries: performance.getEntries().map((entry) => entry.name),
  };
}"""


@dataclass
class SPA:
    """The running app and its providers."""

    base: str
    twitter: LocalProvider
    spotify: LocalProvider

    def secrets(self) -> list[str]:
        """Every token and secret there is: what the providers gave out, and what the app was given."""
        found = [
            value for name, value in ENVIRONMENT.items() if "ID" not in name and "API_KEY" not in name
        ]
        for provider in (self.twitter, self.spotify):
            for shelf in (
                provider.access_tokens,
                provider.refresh_store,
                provider.oauth1_tokens,
                provider.codes,
            ):
                found += shelf._items
            found += [token.secret for token in provider.oauth1_tokens.values()]
        return found

    def assert_nothing_to_steal(self, page: Page) -> None:
        """No token, secret or session in anything that JavaScript of this page can read."""
        cookies = page.context.cookies(self.base)
        assert [item["httpOnly"] for item in cookies] == [True] * len(cookies)
        session = [item["value"] for item in cookies if item["name"] == "oauthgate"]
        hidden = [*self.secrets(), *session]
        assert len(hidden) >= 6 and min(map(len, hidden)) >= 16
        found: dict[str, Any] = page.evaluate(READABLE)
        assert (found["cookie"], found["databases"], found["caches_"]) == ("", [], [])
        assert (found["local"], found["session"]) == ("{}", "{}")
        assert '\\"csrf_token\\"' in found["own"]["received"]  # the bodies are there
        text = json.dumps(found)
        assert [secret for secret in hidden if secret in text] == []


@contextmanager
def running_spa(
    folder: Path, *, host: str = "localhost", origins: tuple[str, ...] = ()
) -> Iterator[SPA]:
    """The example as it stands, by the command of its README, with local providers."""
    port = free_port()
    base = f"http://{host}:{port}"
    with local_services(base) as (twitter, spotify, local):
        file = folder / "oauthgate.toml"
        text = (EXAMPLES / "spa" / "oauthgate.toml").read_text("utf-8")
        if origins:
            text = text.replace("[oauthgate]", f"[oauthgate]\nallowed_origins = {json.dumps(origins)}")
        write_config(text, base, local, file)
        environment = {"NOW_PLAYING_CONFIG": str(file)}
        with started(command("spa"), EXAMPLES / "spa", port, environment, folder / "log"):
            yield SPA(base, twitter, spotify)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def title(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def sign_in_by_popup(page: Page, button: str = "Sign in with Twitter") -> None:
    with page.expect_popup() as popup:
        press(page, button)
    with popup.value.expect_event("close"):
        popup.value.get_by_role("button", name="Allow as Ada Lovelace").click()
