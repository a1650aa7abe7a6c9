"""A site on a real server as its visitors see it, and the way of one visitor through all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from oauthgate.testing import LocalProvider, running
from tests.servers import free_port
from tests.support import PAGE, SiteUnderTest, make_config, make_provider

from .serving import serving, write_toml

JSON = {"accept": "application/json"}
PARALLEL = 20


class Site:
    """An application below `base`, whose gate is at `prefix`. Every browser has a jar of its own."""

    def __init__(
        self,
        base: str,
        stack: contextlib.ExitStack,
        folder: Path,
        provider: LocalProvider,
        *,
        server: str,
        app: str,
        prefix: str = "/_oauth",
        transport: Callable[[], httpx2.BaseTransport] = httpx2.HTTPTransport,
    ) -> None:
        self.base = base
        self.folder = folder
        self.provider = provider
        self.server = server
        self.app = app
        self.prefix = prefix
        self._stack = stack
        self._transport = transport

    @property
    def origin(self) -> str:
        return "/".join(self.base.split("/")[:3])

    def browser(self) -> httpx2.Client:
        client = httpx2.Client(base_url=self.base, transport=self._transport(), timeout=20)
        return self._stack.enter_context(contextlib.closing(client))

    def login(self, browser: httpx2.Client, provider: str, account: str = "ada") -> str:
        """Sign in through the provider's pages; where the callback sends the browser."""
        started = browser.get(f"{self.prefix}/{provider}/login", params={"next": "/who"})
        return self._finish(browser, started, account)

    def link(self, browser: httpx2.Client, provider: str, account: str = "ada") -> str:
        """Link another account; where the callback sends the browser."""
        return self._finish(browser, self.post(browser, f"/{provider}/link", next="/who"), account)

    def post(self, browser: httpx2.Client, route: str, **fields: str) -> httpx2.Response:
        """A POST of a page of this site to one of the gate's routes."""
        token = browser.get(f"{self.prefix}/session").json()["csrf_token"]
        data = {"csrf_token": token, **fields}
        return browser.post(f"{self.prefix}{route}", data=data, headers={"origin": self.origin, **PAGE})

    @staticmethod
    def _finish(browser: httpx2.Client, started: httpx2.Response, account: str) -> str:
        assert started.status_code == 303, started.text
        done = browser.get(SiteUnderTest.authorize(started.headers["location"], account))
        assert done.status_code == 303, done.text
        return str(done.headers["location"])


def cookies(browser: httpx2.Client) -> dict[str, str]:
    """The Cookie header of a browser, for requests without its jar."""
    return {"cookie": "; ".join(f"{item.name}={item.value}" for item in browser.cookies.jar)}


@contextlib.contextmanager
def site_on(
    server: str,
    app: str,
    folder: Path,
    *,
    mount: str = "",
    base_url: bool = True,
    more: tuple[str, ...] = (),
    ready: str | None = None,
    transport: Callable[[], httpx2.BaseTransport] = httpx2.HTTPTransport,
) -> Iterator[Site]:
    """A site on a real server, with a local provider that knows it.

    `mount` is the path that people see in front of it; `base_url` says whether it is configured.
    """
    port = free_port()
    base = f"http://localhost:{port}{mount}"
    provider = make_provider(base)
    with contextlib.ExitStack() as stack:
        config = make_config(stack.enter_context(running(provider)), folder, base)
        if not base_url:
            del config["oauthgate"]["base_url"]
        environment = {
            "OAUTHGATE_TEST_CONFIG": write_toml(folder / "oauthgate.toml", config),
            "OAUTHGATE_TEST_FOLDER": str(folder),
        }
        browsers = contextlib.ExitStack()
        site = Site(base, browsers, folder, provider, server=server, app=app, transport=transport)
        stack.enter_context(
            serving(
                server,
                app,
                port,
                environment,
                ready=ready or f"{mount}/_oauth/providers",
                more=more,
            )
        )
        # Browsers go before the server does: it waits for open connections at its end.
        with browsers:
            yield site


@contextlib.contextmanager
def two_sites_on(server: str, app: str, folder: Path) -> Iterator[tuple[Site, Site]]:
    """Two sites of one process, at `/one` with the gate `/_one` and at `/two` with `/_two`."""
    port = free_port()
    base = f"http://localhost:{port}"
    provider = make_provider(base)
    for client in list(provider.clients.values()):
        name = client.client_id.removesuffix("-client")
        uris = [f"{base}/_{which}/{name}/callback" for which in ("one", "two")]
        provider.clients[client.client_id] = replace(client, redirect_uris=uris)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running(provider))
        paths = {}
        for which in ("one", "two"):
            config = make_config(url, folder, base)
            config["oauthgate"]["prefix"] = f"/_{which}"
            config["oauthgate"]["store"] = f"sqlite:///{which}.db"
            config["session"] = {"cookie": f"{which}-session"}
            paths[which] = write_toml(folder / f"{which}.toml", config)
        environment = {
            "OAUTHGATE_TEST_CONFIG": paths["one"],
            "OAUTHGATE_TEST_SECOND_CONFIG": paths["two"],
            "OAUTHGATE_TEST_FOLDER": str(folder),
        }
        stack.enter_context(serving(server, app, port, environment, ready="/_two/providers"))
        with contextlib.ExitStack() as browsers:
            one, two = (
                Site(base, browsers, folder, provider, server=server, app=app, prefix=f"/_{which}")
                for which in ("one", "two")
            )
            yield one, two


def whole_way(site: Site, *, calls: tuple[str, ...] = ("/call",)) -> None:
    """One visitor's way: refused, signed in, linked, served (20 times at once), unlinked, signed out."""
    browser = site.browser()
    assert who(browser)["user_id"] is None

    refused = browser.get(f"{calls[0]}/spotify/me", headers=JSON)
    assert refused.status_code == 401, refused.text
    assert refused.json()["error"] == "link_required"
    sent = browser.get(f"{calls[0]}/spotify/me", headers=PAGE)
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"].startswith(f"{site.base}{site.prefix}/spotify/link?next=")

    assert site.login(browser, "twitter") == f"{site.base}/who"
    assert site.link(browser, "spotify") == f"{site.base}/who"
    assert who(browser)["services"] == ["spotify", "twitter"]
    for path in calls:
        for service in ("twitter", "spotify"):
            assert browser.get(f"{path}/{service}/me").json()["id"] == "1001"

    headers = cookies(browser)
    other = site.browser()
    with ThreadPoolExecutor(PARALLEL) as pool:
        urls = [f"{calls[number % len(calls)]}/spotify/me" for number in range(PARALLEL)]
        answers = list(pool.map(lambda url: other.get(url, headers=headers), urls))
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [
        (200, "1001")
    ] * PARALLEL

    for service in ("twitter", "spotify"):
        assert site.post(browser, f"/{service}/unlink").status_code == 303
    assert who(browser)["links"] == []

    assert site.post(browser, "/logout").status_code == 200
    assert who(browser)["user_id"] is None
    assert other.get("/who", headers=headers).json()["user_id"] is None


def who(browser: httpx2.Client) -> dict[str, Any]:
    answer = browser.get("/who")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def no_bleeding(site: Site, *, requests: int = 200, threads: int = 8) -> None:
    """Requests of two users, interleaved on the same connections: each finds its own person (row 61)."""
    people = {}
    for account, number in (("ada", "1001"), ("grace", "1002")):
        browser = site.browser()
        site.login(browser, "spotify", account)
        people[number] = cookies(browser)
    shared = site.browser()

    def ask(index: int) -> tuple[str, str]:
        number = "1001" if index % 2 else "1002"
        if index % 4 < 2:
            found = shared.get("/call/spotify/me", headers=people[number]).json()["id"]
        else:
            (link,) = shared.get("/who", headers=people[number]).json()["links"]
            found = link.removeprefix("spotify:")
        return number, found

    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(ask, range(requests)))
    assert [found for _, found in seen] == [number for number, _ in seen]
    assert len(seen) == requests
    assert who(site.browser())["user_id"] is None
